"""BaseRNNCell: what all recurrent cells do, and what a cell of one's own overrides.

A cell is called once per step; each call adds that step's operators to the graph.

Next: `asyncmod.rnn.cells` for the cells that compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asyncmod import symbol
from asyncmod.errors import ModuleStateError
from asyncmod.rnn import gates, sequence
from asyncmod.rnn.parameters import RNNParams
from asyncmod.rnn.sequence import Steps
from asyncmod.symbol import Symbol

# Shape and layout of one state, keywords of the function that makes its begin.
StateInfo = dict[str, Any]
Parameters = dict[str, Any]
Activation = str | Callable[..., Symbol]


class BaseRNNCell:
    """A recurrent cell: (input, states) -> (output, states), step by step.

    Args:
        prefix: Put before the names of its variables and operators.
        params: Variables to share with other cells; its own unless given.
    """

    def __init__(self, prefix: str = "", params: RNNParams | None = None) -> None:
        self._own_params = params is None
        self._params = RNNParams(prefix) if params is None else params
        self._prefix = prefix
        # A modifier around this cell makes the states instead of it.
        self._modified = False
        self._init_counter = -1
        self._counter = -1

    @property
    def params(self) -> RNNParams:
        """The variables, to share them: `LSTMCell(100, params=other.params)`."""
        self._own_params = False
        return self._params

    @property
    def state_info(self) -> list[StateInfo]:
        """Shape (0 for the batch) and layout of each state."""
        raise NotImplementedError(
            f"{type(self).__name__} must define the property `state_info`: shape and "
            "layout of each state"
        )

    @property
    def state_shape(self) -> list[tuple[int, ...]]:
        """Shape of each state; 0 for the batch."""
        return [info["shape"] for info in self.state_info]

    def reset(self) -> None:
        """Start to count the steps anew, for another graph."""
        self._init_counter = -1
        self._counter = -1

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Add one step.

        Args:
            inputs: The step's input, (batch, features).
            states: From `begin_state()` or the step before.

        Returns:
            The step's output, and the states for the next step.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `__call__(self, inputs, states)`, "
            "which returns the output and the states after it"
        )

    def begin_state(
        self, func: Callable[..., Symbol] = symbol.zeros, **kwargs: Any
    ) -> list[Symbol]:
        """The states before the first step.

        Args:
            func: Makes one of `name`, `shape` and `__layout__`: zeros, or
                `mx.sym.Variable` for states that are fed.
            **kwargs: Further keywords of it.

        Raises:
            ModuleStateError: the cell is inside a modifier, such as ZoneoutCell.
        """
        if self._modified:
            raise ModuleStateError(
                "the base cell of a modifier cell (Zoneout, Residual) cannot be called "
                "directly: call the modifier's begin_state()"
            )
        states = []
        for info in self.state_info:
            self._init_counter += 1
            name = f"{self._prefix}begin_state_{self._init_counter}"
            states.append(func(name=name, **(kwargs | info)))
        return states

    def unroll(
        self,
        length: int,
        inputs: Steps,
        begin_state: Sequence[Symbol] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Steps, list[Symbol]]:
        """Add all steps of a sequence.

        Args:
            length: How many steps.
            inputs: One symbol with a time axis, or one symbol per step.
            begin_state: States before the first step; `begin_state()` unless given.
            layout: `NTC` or `TNC`: where the time axis is, in inputs and outputs.
            merge_outputs: True for one symbol with a time axis, False for one per
                step, None for whatever needs no operator.

        Returns:
            The outputs, and the states after the last step.

        Raises:
            ArgumentError: a layout without time, or another number of inputs.
        """
        self.reset()
        axis = sequence.time_axis(layout)
        steps = sequence.split(inputs, length, axis)
        states = self.begin_state() if begin_state is None else list(begin_state)
        outputs = []
        for step in steps:
            output, states = self(step, states)
            outputs.append(output)
        return sequence.shaped(outputs, length, axis, merge_outputs), states

    # Weights

    @property
    def _gate_names(self) -> tuple[str, ...]:
        return ()

    def unpack_weights(self, args: Mapping[str, Any]) -> Parameters:
        """The parameters with one entry per gate: `lstm_i2h_f_weight`.

        Args:
            args: Arrays by name; those that are not this cell's are kept.

        Returns:
            A new dict; the pieces are copies.

        Raises:
            ArgumentError: a parameter of the cell is missing.
        """
        return gates.unpack(args, self._prefix, self._gate_names)

    def pack_weights(self, args: Mapping[str, Any]) -> Parameters:
        """The inverse of `unpack_weights`.

        Raises:
            ArgumentError: a piece is missing.
        """
        return gates.pack(args, self._prefix, self._gate_names)
