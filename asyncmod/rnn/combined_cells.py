"""Cells made of cells: one above the other, or one in each direction of time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asyncmod import symbol
from asyncmod.errors import ArgumentError, ModuleStateError, UnsupportedError
from asyncmod.rnn import sequence
from asyncmod.rnn.base import BaseRNNCell, Parameters, StateInfo
from asyncmod.rnn.parameters import RNNParams
from asyncmod.rnn.sequence import Steps
from asyncmod.symbol import Symbol


class SequentialRNNCell(BaseRNNCell):
    """Cells one above the other: each reads the output of the one below.

    Args:
        params: Variables to share with all cells in it.
    """

    def __init__(self, params: RNNParams | None = None) -> None:
        super().__init__("", params)
        self._shares = params is not None
        self._cells: list[BaseRNNCell] = []

    def add(self, cell: BaseRNNCell) -> None:
        """Put a cell on top.

        Raises:
            ArgumentError: both this stack and the cell were given `params`.
        """
        self._cells.append(cell)
        _share(self._params, cell, self._shares)

    def reset(self) -> None:
        """Start to count the steps anew, in all cells."""
        super().reset()
        for cell in self._cells:
            cell.reset()

    @property
    def state_info(self) -> list[StateInfo]:
        """The states of all cells, from below."""
        return [info for cell in self._cells for info in cell.state_info]

    def begin_state(
        self, func: Callable[..., Symbol] = symbol.zeros, **kwargs: Any
    ) -> list[Symbol]:
        """The states of all cells before the first step, from below."""
        return _begin(self, self._cells, func, kwargs)

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Add one step of every cell."""
        self._counter += 1
        after = []
        for cell, own in zip(self._cells, _parts(self._cells, states), strict=True):
            inputs, own_after = cell(inputs, own)
            after.extend(own_after)
        return inputs, after

    def unroll(
        self,
        length: int,
        inputs: Steps,
        begin_state: Sequence[Symbol] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Steps, list[Symbol]]:
        """Add all steps, cell by cell; see `BaseRNNCell.unroll`."""
        self.reset()
        states = self.begin_state() if begin_state is None else list(begin_state)
        after = []
        for cell, own in zip(self._cells, _parts(self._cells, states), strict=True):
            merged = merge_outputs if cell is self._cells[-1] else None
            inputs, own_after = cell.unroll(length, inputs, own, layout, merged)
            after.extend(own_after)
        return inputs, after

    def unpack_weights(self, args: Mapping[str, Any]) -> Parameters:
        """The parameters with one entry per gate, of all cells."""
        for cell in self._cells:
            args = cell.unpack_weights(args)
        return dict(args)

    def pack_weights(self, args: Mapping[str, Any]) -> Parameters:
        """The inverse of `unpack_weights`."""
        for cell in self._cells:
            args = cell.pack_weights(args)
        return dict(args)


class BidirectionalCell(BaseRNNCell):
    """One cell forwards and one backwards in time; outputs side by side.

    Only `unroll` works: the backward cell begins at the last step. The states after it
    come as one list, in the order of `begin_state()`: the forward cell's, then the
    backward cell's.

    Args:
        l_cell: Reads from the first step to the last.
        r_cell: Reads from the last step to the first.
        params: Variables to share with both.
        output_prefix: Put before the names of the outputs.
    """

    def __init__(
        self,
        l_cell: BaseRNNCell,
        r_cell: BaseRNNCell,
        params: RNNParams | None = None,
        output_prefix: str = "bi_",
    ) -> None:
        super().__init__("", params)
        self._output_prefix = output_prefix
        self._cells = [l_cell, r_cell]
        for cell in self._cells:
            _share(self._params, cell, shares=params is not None)

    def reset(self) -> None:
        """Start to count the steps anew, in both cells."""
        super().reset()
        for cell in self._cells:
            cell.reset()

    @property
    def state_info(self) -> list[StateInfo]:
        """The states of the forward cell, then those of the backward cell."""
        return [info for cell in self._cells for info in cell.state_info]

    def begin_state(
        self, func: Callable[..., Symbol] = symbol.zeros, **kwargs: Any
    ) -> list[Symbol]:
        """The states of both cells before their first step."""
        return _begin(self, self._cells, func, kwargs)

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Not possible.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            "a bidirectional cell cannot be stepped, since it needs the last input "
            "first: use unroll()"
        )

    def unroll(
        self,
        length: int,
        inputs: Steps,
        begin_state: Sequence[Symbol] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Steps, list[Symbol]]:
        """Add all steps of both cells; see `BaseRNNCell.unroll`."""
        self.reset()
        axis = sequence.time_axis(layout)
        steps = sequence.split(inputs, length, axis)
        states = self.begin_state() if begin_state is None else list(begin_state)
        (forward, backward) = self._cells
        (forward_states, backward_states) = _parts(self._cells, states)
        left, left_after = forward.unroll(
            length, steps, forward_states, layout, bool(merge_outputs)
        )
        right, right_after = backward.unroll(
            length, steps[::-1], backward_states, layout, merge_outputs=False
        )
        right = list(right)[::-1]
        after = left_after + right_after
        prefix = self._output_prefix
        if merge_outputs:
            right = sequence.merge(right, axis)
            return symbol.Concat(left, right, dim=2, name=f"{prefix}out"), after
        return [
            symbol.Concat(both[0], both[1], dim=1, name=f"{prefix}t{step}")
            for step, both in enumerate(zip(left, right, strict=True))
        ], after

    def unpack_weights(self, args: Mapping[str, Any]) -> Parameters:
        """The parameters with one entry per gate, of both cells."""
        for cell in self._cells:
            args = cell.unpack_weights(args)
        return dict(args)

    def pack_weights(self, args: Mapping[str, Any]) -> Parameters:
        """The inverse of `unpack_weights`."""
        for cell in self._cells:
            args = cell.pack_weights(args)
        return dict(args)


def _share(params: RNNParams, cell: BaseRNNCell, shares: bool) -> None:
    if shares and not cell._own_params:
        raise ArgumentError(
            "give `params` either to the compound cell or to the cells in it, not to "
            "both"
        )
    params.share(cell.params)


def _begin(
    whole: BaseRNNCell,
    cells: Sequence[BaseRNNCell],
    func: Callable[..., Symbol],
    kwargs: Mapping[str, Any],
) -> list[Symbol]:
    if whole._modified:
        raise ModuleStateError(
            "the base cell of a modifier cell (Zoneout, Residual) cannot be called "
            "directly: call the modifier's begin_state()"
        )
    return [state for cell in cells for state in cell.begin_state(func, **kwargs)]


def _parts(
    cells: Sequence[BaseRNNCell], states: Sequence[Symbol]
) -> list[Sequence[Symbol]]:
    """The states of each cell."""
    parts = []
    first = 0
    for cell in cells:
        count = len(cell.state_info)
        parts.append(states[first : first + count])
        first += count
    if first != len(states):
        raise ArgumentError(
            f"{len(states)} states were given, but the cells have {first}: take those "
            "of begin_state(), or of the step before"
        )
    return parts
