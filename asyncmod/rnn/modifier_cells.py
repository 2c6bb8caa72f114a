"""Cells that change what another cell does: dropout, zoneout, residual connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asyncmod import symbol
from asyncmod.errors import ArgumentError
from asyncmod.rnn import sequence
from asyncmod.rnn.base import BaseRNNCell, Parameters, StateInfo
from asyncmod.rnn.combined_cells import BidirectionalCell
from asyncmod.rnn.parameters import RNNParams
from asyncmod.rnn.sequence import Steps
from asyncmod.symbol import Symbol


class DropoutCell(BaseRNNCell):
    """Dropout on the inputs; for use in a SequentialRNNCell.

    Args:
        dropout: The share of values that become 0 in training.
        prefix: Put before all names.
        params: Not used; there are no variables.
    """

    def __init__(
        self,
        dropout: float,
        prefix: str = "dropout_",
        params: RNNParams | None = None,
    ) -> None:
        super().__init__(prefix, params)
        self.dropout = dropout

    @property
    def state_info(self) -> list[StateInfo]:
        """No states."""
        return []

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Add one dropout; states pass."""
        if self.dropout > 0:
            inputs = symbol.Dropout(inputs, p=self.dropout)
        return inputs, list(states)

    def unroll(
        self,
        length: int,
        inputs: Steps,
        begin_state: Sequence[Symbol] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Steps, list[Symbol]]:
        """Add the dropouts: one for a merged sequence, else one per step."""
        self.reset()
        axis = sequence.time_axis(layout)
        inputs = sequence.shaped(inputs, length, axis, merge_outputs)
        if isinstance(inputs, Symbol):
            return self(inputs, [])
        return super().unroll(length, inputs, begin_state, layout, merge_outputs)


class ModifierCell(BaseRNNCell):
    """Base of cells that wrap one other: weights and states are those of the other.

    Args:
        base_cell: The cell to wrap, which from now on is not used directly.
    """

    def __init__(self, base_cell: BaseRNNCell) -> None:
        super().__init__(base_cell._prefix, base_cell._params)
        self._own_params = base_cell._own_params
        base_cell._modified = True
        self.base_cell = base_cell

    @property
    def params(self) -> RNNParams:
        """The variables of the base cell."""
        self._own_params = False
        return self.base_cell.params

    @property
    def state_info(self) -> list[StateInfo]:
        """The states of the base cell."""
        return self.base_cell.state_info

    def reset(self) -> None:
        """Start to count the steps anew."""
        super().reset()
        self.base_cell.reset()

    def begin_state(
        self, func: Callable[..., Symbol] = symbol.zeros, **kwargs: Any
    ) -> list[Symbol]:
        """The base cell's states before the first step."""
        self.base_cell._modified = self._modified
        try:
            return self.base_cell.begin_state(func, **kwargs)
        finally:
            self.base_cell._modified = True

    def unpack_weights(self, args: Mapping[str, Any]) -> Parameters:
        """As the base cell."""
        return self.base_cell.unpack_weights(args)

    def pack_weights(self, args: Mapping[str, Any]) -> Parameters:
        """As the base cell."""
        return self.base_cell.pack_weights(args)


class ZoneoutCell(ModifierCell):
    """In training, outputs and states keep the value of the step before, by chance.

    Args:
        base_cell: The cell to wrap.
        zoneout_outputs: The share of output values that are kept; before the first step
            they are 0.
        zoneout_states: The share of state values that are kept.

    Raises:
        ArgumentError: the base cell is bidirectional, so that no output is before.
    """

    def __init__(
        self,
        base_cell: BaseRNNCell,
        zoneout_outputs: float = 0.0,
        zoneout_states: float = 0.0,
    ) -> None:
        if isinstance(base_cell, BidirectionalCell):
            raise ArgumentError(
                "BidirectionalCell doesn't support zoneout since it doesn't support "
                "step: wrap the cells inside it in ZoneoutCell"
            )
        super().__init__(base_cell)
        self.zoneout_outputs = zoneout_outputs
        self.zoneout_states = zoneout_states
        self._before: Symbol | None = None

    def reset(self) -> None:
        """Start to count the steps anew, and forget the output before."""
        super().reset()
        self._before = None

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Add one step."""
        output, after = self.base_cell(inputs, states)
        if self.zoneout_outputs:
            before = symbol.zeros_like(output) if self._before is None else self._before
            output = _zoneout(output, before, self.zoneout_outputs)
        if self.zoneout_states:
            after = [
                _zoneout(new, old, self.zoneout_states)
                for new, old in zip(after, states, strict=True)
            ]
        self._before = output
        return output, after


class ResidualCell(ModifierCell):
    """The base cell's output plus its input, which must be of one size.

    Args:
        base_cell: The cell to wrap.
    """

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Add one step."""
        output, after = self.base_cell(inputs, states)
        return _plus(output, inputs), after

    def unroll(
        self,
        length: int,
        inputs: Steps,
        begin_state: Sequence[Symbol] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Steps, list[Symbol]]:
        """Add all steps of the base cell, then the sums."""
        self.reset()
        axis = sequence.time_axis(layout)
        states = self.begin_state() if begin_state is None else begin_state
        outputs, after = self.base_cell.unroll(
            length, inputs, states, layout, merge_outputs
        )
        if isinstance(outputs, Symbol):
            return _plus(outputs, sequence.merge(inputs, axis)), after
        steps = sequence.split(inputs, length, axis)
        return [_plus(o, i) for o, i in zip(outputs, steps, strict=True)], after


def _plus(output: Symbol, inputs: Symbol) -> Symbol:
    return symbol.elemwise_add(output, inputs, name=f"{output.name}_plus_residual")


def _zoneout(new: Symbol, old: Symbol, share: float) -> Symbol:
    # Dropout of ones is 0 where the old value stays; outside training nothing is.
    fresh = symbol.Dropout(symbol.ones_like(new), p=share) > 0
    return fresh * new + (1.0 - fresh) * old
