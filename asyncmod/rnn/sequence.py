"""Sequences of inputs and outputs: one symbol with a time axis, or one per step."""

from __future__ import annotations

from collections.abc import Sequence

from asyncmod import symbol
from asyncmod.errors import ArgumentError
from asyncmod.symbol import Symbol

Steps = Symbol | Sequence[Symbol]


def time_axis(layout: str) -> int:
    """Which axis of `NTC` or `TNC` is time.

    Raises:
        ArgumentError: the layout has no time axis behind or before the batch's.
    """
    axis = layout.find("T")
    if axis not in (0, 1):
        raise ArgumentError(
            f"`layout` is {layout!r}, but time is the first or second axis of a "
            "sequence: use 'NTC' or 'TNC'"
        )
    return axis


def split(inputs: Steps, length: int, axis: int) -> list[Symbol]:
    """The steps of a sequence, one symbol each.

    Raises:
        ArgumentError: there are not `length` of them, or the symbol is a group.
    """
    if not isinstance(inputs, Symbol):
        steps = list(inputs)
        if len(steps) != length:
            raise ArgumentError(
                f"`inputs` has {len(steps)} steps, but is to be unrolled over {length}"
            )
        return steps
    if len(inputs) != 1:
        raise ArgumentError(
            f"`inputs` is a group of {len(inputs)} symbols; give a list of one symbol "
            "per step, or one symbol with a time axis"
        )
    return list(symbol.split(inputs, axis=axis, num_outputs=length, squeeze_axis=1))


def merge(steps: Steps, axis: int) -> Symbol:
    """One symbol with a time axis."""
    if isinstance(steps, Symbol):
        return steps
    apart = [symbol.expand_dims(s, axis=axis) for s in steps]
    return symbol.Concat(*apart, dim=axis)


def shaped(steps: Steps, length: int, axis: int, merged: bool | None) -> Steps:
    """A sequence in the form that is asked for; None leaves it as it is."""
    if merged is None:
        return steps
    return merge(steps, axis) if merged else split(steps, length, axis)
