"""Arithmetic on symbols: `a + b`, `2 - a`, `a > 0`.

Each makes one node, under MXNet's operator name and automatic name: `a + b` is
`elemwise_add` named `_plus0`, `a + 2` is `_plus_scalar` named `_plusscalar0`.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

from asyncmod.symbol.apply import apply, visible
from runtime.graph import registry

if TYPE_CHECKING:
    from asyncmod.symbol.symbol import Symbol

Method = Callable[["Symbol", Any], "Symbol"]


def binary(both: str, scalar: str, hint: str, scalar_hint: str = "") -> Method:
    """A method for `self` and another symbol, or a number to its right.

    Args:
        both: The operator of two symbols.
        scalar: The operator of a symbol and a number.
        hint: What automatic names begin with; `scalar` is appended for numbers.
        scalar_hint: What they begin with for numbers, if that is not so.
    """
    reflected_or_right = reflected(scalar, scalar_hint or f"{hint}scalar")

    def method(self: Symbol, other: Any) -> Symbol:
        if isinstance(other, type(self)):
            inputs = [self.entry, other.entry]
            return type(self)(visible(apply(registry.get(both), hint, inputs, {}, {})))
        return reflected_or_right(self, other)

    return method


def reflected(scalar: str, hint: str) -> Method:
    """A method for `self` and a number."""

    def method(self: Symbol, other: Any) -> Symbol:
        # NumPy's numbers are registered as Real; booleans are integers.
        if not isinstance(other, Real):
            return NotImplemented  # type: ignore[no-any-return]
        attributes = {"scalar": other}
        node = apply(registry.get(scalar), hint, [self.entry], {}, attributes)
        return type(self)(visible(node))

    return method
