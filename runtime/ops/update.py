"""Update rules: what an optimizer does to one weight, as a NumPy definition.

Optimizers choose a rule and give its scalars anew for every step (`hyper`), so that
schedules and multipliers need no recompilation. Rules return fresh arrays: an update
is written beside the weights and swapped in when all of it has succeeded.

Next: `runtime.ops.updates.rule`.
"""

from __future__ import annotations

from runtime.errors import OperatorError
from runtime.ops.updates import accumulation, descent, langevin, moments, norms
from runtime.ops.updates.rule import COMMON, UpdateRule

_MOMENTUM = ("momentum",)
_MEANS = ("mean", "variance")
_BETAS = ("beta1", "beta2")
_CORRECTIONS = ("correction1", "correction2")

RULES = {
    name: UpdateRule(name, (*COMMON, *hyper), states, formula)
    for name, hyper, states, formula in (
        ("sgd", _MOMENTUM, _MOMENTUM, descent.sgd),
        ("nag", _MOMENTUM, _MOMENTUM, descent.nag),
        ("signum", ("momentum", "wd_lh"), _MOMENTUM, descent.signum),
        ("dcasgd", ("momentum", "lamda"), ("step",), descent.dcasgd),
        ("adam", (*_BETAS, "epsilon"), _MEANS, moments.adam),
        ("adamax", _BETAS, ("mean", "largest"), moments.adamax),
        (
            "nadam",
            (*_BETAS, "epsilon", "momentum", "next_momentum", "product", "correction"),
            _MEANS,
            moments.nadam,
        ),
        (
            "ftml",
            (*_BETAS, "epsilon", *_CORRECTIONS),
            ("scale", "variance", "leader"),
            moments.ftml,
        ),
        ("adagrad", ("epsilon",), ("history",), accumulation.adagrad),
        (
            "adadelta",
            ("rho", "epsilon"),
            ("gradients", "steps"),
            accumulation.adadelta,
        ),
        (
            "rmsprop",
            ("gamma1", "epsilon", "clip_weights"),
            ("squares",),
            accumulation.rmsprop,
        ),
        (
            "rmsprop_centered",
            ("gamma1", "gamma2", "epsilon", "clip_weights"),
            ("squares", "mean", "step"),
            accumulation.rmsprop_centered,
        ),
        ("ftrl", ("lamda1", "beta"), ("leader", "squares"), accumulation.ftrl),
    )
} | {
    rule.name: rule
    for rule in (
        UpdateRule(
            "groupadagrad",
            (*COMMON, "epsilon"),
            ("history",),
            accumulation.groupadagrad,
            elementwise=False,
            axes=2,
        ),
        UpdateRule(
            "lars",
            (*COMMON, "momentum", "eta", "epsilon", "adapts"),
            _MOMENTUM,
            norms.lars,
            elementwise=False,
        ),
        UpdateRule(
            "lbsgd",
            (*COMMON, "momentum", "batch_scale", "due", "adapts"),
            ("collected", "momentum"),
            norms.lbsgd,
            elementwise=False,
        ),
        UpdateRule(
            "lamb",
            (
                *COMMON,
                *_BETAS,
                "epsilon",
                *_CORRECTIONS,
                "lower_bound",
                "upper_bound",
            ),
            _MEANS,
            norms.lamb,
            elementwise=False,
        ),
        UpdateRule(
            "sgld",
            (*COMMON, "seed", "stream", "step"),
            (),
            langevin.sgld,
            elementwise=False,
        ),
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
