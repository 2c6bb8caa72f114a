"""What an update rule is, and what all formulas begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.errors import OperatorError

Array = NDArray[Any]
Result = tuple[Array, tuple[Array, ...]]
"""The new weight and the new states."""


class Formula(Protocol):
    """(weight, summed gradient, states, hyper) -> fresh (new weight, new states).

    Arrays are float32 or float64. Hyper are Python floats: they take the precision of
    the arrays that they meet.
    """

    def __call__(
        self,
        weight: Array,
        gradient: Array,
        states: Sequence[Array],
        hyper: tuple[float, ...],
    ) -> Result: ...


@dataclass(frozen=True)
class UpdateRule:
    """One rule.

    Attributes:
        name: What optimizers call it by.
        hyper: Names of the scalars, in order.
        states: Names of the states that it may keep, all zero at first; an optimizer
            that needs none of the last ones (SGD without momentum) leaves them out.
        formula: The definition.
        elementwise: Whether any slice of a weight can be updated alone, so that devices
            can share the work; else the formula gets the weight whole, in its shape.
        axes: How many axes a weight must have; None: any number.
        by_rows: Whether MXNet has a sparse kernel for it: one that updates only the
            rows that a row-sparse gradient has, by the same formula.
    """

    name: str
    hyper: tuple[str, ...]
    states: tuple[str, ...]
    formula: Formula
    elementwise: bool = True
    axes: int | None = None
    by_rows: bool = False

    def apply(
        self,
        weight: Array,
        gradient: Array,
        states: Sequence[Array],
        hyper: Array | Sequence[float],
    ) -> Result:
        """The new weight and states as fresh arrays; nothing given is changed.

        float16 is computed in float32 and rounded at the end.

        Args:
            weight: float16, float32 or float64.
            gradient: Of the weight's shape.
            states: The states that the optimizer keeps, in the rule's order.
            hyper: The scalars, in the rule's order.
        """
        dtype = weight.dtype
        work = np.dtype(np.float32) if dtype == np.float16 else dtype
        new_weight, new_states = self.formula(
            weight.astype(work, copy=False),
            gradient.astype(work, copy=False),
            [state.astype(work, copy=False) for state in states],
            tuple(map(float, hyper)),
        )
        return new_weight.astype(dtype, copy=False), tuple(
            new.astype(state.dtype, copy=False)
            for new, state in zip(new_states, states, strict=True)
        )

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Check that a parameter can be updated by this rule.

        Raises:
            OperatorError: it has another number of axes.
        """
        if self.axes is not None and len(shape) != self.axes:
            raise OperatorError(
                f"the optimizer {self.name} updates parameters of {self.axes} axes "
                f"only, and `{name}` has shape {shape}: fix it (`fixed_param_names`), "
                "or choose another optimizer"
            )


COMMON = ("lr", "wd", "rescale_grad", "clip_gradient")
"""The scalars that all rules begin with; a negative `clip_gradient` means none."""


def rescaled(gradient: Array, rescale: float, clip: float) -> Array:
    """clip(rescale * gradient)."""
    return clipped(rescale * gradient, clip)


def decayed(
    weight: Array, gradient: Array, wd: float, rescale: float, clip: float
) -> Array:
    """clip(rescale * gradient + wd * weight): the clip includes the decay."""
    return clipped(rescale * gradient + wd * weight, clip)


def clipped(values: Array, bound: float) -> Array:
    """Values cut off at plus and minus the bound; a negative bound means none."""
    return np.clip(values, -bound, bound) if bound >= 0 else values


def unchanged(weight: Array, states: Sequence[Array]) -> Result:
    """No step at all, as fresh arrays."""
    return weight.copy(), tuple(state.copy() for state in states)
