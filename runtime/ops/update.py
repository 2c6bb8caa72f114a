"""Update rules: what an optimizer does to one weight, as a NumPy definition.

Optimizers choose a rule and give its scalars anew for every step (`hyper`), so that
schedules and multipliers need no recompilation. Rules return fresh arrays: an update
is written beside the weights and swapped in when all of it has succeeded.

Next: `runtime.ops.updates.rule`.
"""

from __future__ import annotations

from typing import Any

from runtime.errors import OperatorError
from runtime.ops.updates import accumulation, descent, langevin, moments, norms
from runtime.ops.updates.rule import COMMON, Formula, UpdateRule


def _rule(
    name: str, formula: Formula, hyper: str, states: str = "", **options: Any
) -> UpdateRule:
    """A row of the table: names of scalars after the common ones, and of states."""
    return UpdateRule(
        name, (*COMMON, *hyper.split()), tuple(states.split()), formula, **options
    )


RULES = {
    rule.name: rule
    for rule in (
        _rule("sgd", descent.sgd, "momentum", "momentum", by_rows=True),
        _rule("nag", descent.nag, "momentum", "momentum"),
        _rule("signum", descent.signum, "momentum wd_lh", "momentum"),
        _rule("dcasgd", descent.dcasgd, "momentum lamda", "step"),
        _rule(
            "adam",
            moments.adam,
            "beta1 beta2 epsilon",
            "mean variance",
            by_rows=True,
        ),
        _rule("adamax", moments.adamax, "beta1 beta2", "mean largest"),
        _rule(
            "nadam",
            moments.nadam,
            "beta1 beta2 epsilon momentum next_momentum product correction",
            "mean variance",
        ),
        _rule(
            "ftml",
            moments.ftml,
            "beta1 beta2 epsilon correction1 correction2",
            "scale variance leader",
        ),
        _rule("adagrad", accumulation.adagrad, "epsilon", "history", by_rows=True),
        _rule(
            "groupadagrad",
            accumulation.groupadagrad,
            "epsilon",
            "history",
            elementwise=False,
            axes=2,
            by_rows=True,
        ),
        _rule("adadelta", accumulation.adadelta, "rho epsilon", "gradients steps"),
        _rule(
            "rmsprop", accumulation.rmsprop, "gamma1 epsilon clip_weights", "squares"
        ),
        _rule(
            "rmsprop_centered",
            accumulation.rmsprop_centered,
            "gamma1 gamma2 epsilon clip_weights",
            "squares mean step",
        ),
        _rule("ftrl", accumulation.ftrl, "lamda1 beta", "leader squares", by_rows=True),
        _rule(
            "lars",
            norms.lars,
            "momentum eta epsilon adapts",
            "momentum",
            elementwise=False,
        ),
        _rule(
            "lbsgd",
            norms.lbsgd,
            "momentum batch_scale due adapts",
            "collected momentum",
            elementwise=False,
        ),
        _rule(
            "lamb",
            norms.lamb,
            "beta1 beta2 epsilon correction1 correction2 lower_bound upper_bound",
            "mean variance",
            elementwise=False,
        ),
        _rule("sgld", langevin.sgld, "seed stream step", elementwise=False),
    )
}


def get_rule(name: str) -> UpdateRule:
    """The rule of that name.

    Raises:
        OperatorError: if there is none.
    """
    if name not in RULES:
        raise OperatorError(
            f"unknown update rule `{name}`; there are {', '.join(sorted(RULES))}"
        )
    return RULES[name]
