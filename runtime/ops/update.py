"""Update rules: what an optimizer does to one weight, as a NumPy definition.

Optimizers choose a rule and give its scalars anew for every step (`hyper`), so that
schedules and multipliers need no recompilation. Rules return fresh arrays: an update
is written beside the weights and swapped in when all of it has succeeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.errors import OperatorError

Array = NDArray[Any]


class Apply(Protocol):
    """(weight, summed gradient, states, hyper) -> (new weight, new states)."""

    def __call__(
        self, weight: Array, gradient: Array, states: Sequence[Array], hyper: Array
    ) -> tuple[Array, tuple[Array, ...]]: ...


@dataclass(frozen=True)
class UpdateRule:
    """One rule.

    Attributes:
        name: What optimizers call it by.
        hyper: Names of the scalars, in order.
        states: Names of the states that it may keep; an optimizer that needs none of
            them (SGD without momentum) declares none.
        apply: The definition.
        elementwise: Whether any slice of a weight can be updated alone, so that devices
            can share the work.
    """

    name: str
    hyper: tuple[str, ...]
    states: tuple[str, ...]
    apply: Apply
    elementwise: bool = True


def sgd(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: Array
) -> tuple[Array, tuple[Array, ...]]:
    """MXNet `sgd_update` and `sgd_mom_update`: clipping does not include the decay."""
    dtype = weight.dtype.type
    lr, wd, rescale, clip, momentum = (dtype(value) for value in hyper)
    scaled = rescale * gradient
    if clip >= 0:
        scaled = np.clip(scaled, -clip, clip)
    if not states:
        return (1 - lr * wd) * weight - lr * scaled, ()
    velocity = momentum * states[0] - lr * (scaled + wd * weight)
    return weight + velocity, (velocity,)


RULES = {
    rule.name: rule
    for rule in (
        UpdateRule(
            "sgd",
            ("lr", "wd", "rescale_grad", "clip_gradient", "momentum"),
            ("momentum",),
            sgd,
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
