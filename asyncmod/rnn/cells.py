"""The cells that compute: RNNCell, LSTMCell and GRUCell, with MXNet's names."""

from __future__ import annotations

from collections.abc import Sequence

from asyncmod import symbol
from asyncmod.initializer import LSTMBias
from asyncmod.rnn.base import Activation, BaseRNNCell, StateInfo
from asyncmod.rnn.parameters import RNNParams
from asyncmod.symbol import Symbol


class RNNCell(BaseRNNCell):
    """h' = activation(W x + b + R h + c).

    Args:
        num_hidden: Size of the state and the output.
        activation: Name for `Activation`, or a function of a symbol.
        prefix: Put before all names.
        params: Variables to share.
    """

    def __init__(
        self,
        num_hidden: int,
        activation: Activation = "tanh",
        prefix: str = "rnn_",
        params: RNNParams | None = None,
    ) -> None:
        super().__init__(prefix, params)
        self._dense = _Projections(self._params, num_hidden)
        self._activation = activation

    @property
    def state_info(self) -> list[StateInfo]:
        """One state, the output."""
        return [_state(self._dense.num_hidden)]

    @property
    def _gate_names(self) -> tuple[str, ...]:
        return ("",)

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Add one step."""
        self._counter += 1
        name = f"{self._prefix}t{self._counter}_"
        total = self._dense.input(inputs, name) + self._dense.hidden(states[0], name)
        output = activate(total, self._activation, f"{name}out")
        return output, [output]


class LSTMCell(BaseRNNCell):
    """Long short-term memory: gates i, f, c, o from W x + b + R h + c.

    c' = f * c + i * tanh(g), h' = o * tanh(c'); sigmoid on the gates.

    Args:
        num_hidden: Size of both states and the output.
        prefix: Put before all names.
        params: Variables to share.
        forget_bias: Where the bias of the forget gate begins.
    """

    def __init__(
        self,
        num_hidden: int,
        prefix: str = "lstm_",
        params: RNNParams | None = None,
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__(prefix, params)
        self._dense = _Projections(
            self._params, num_hidden, gates=4, input_bias=LSTMBias(forget_bias)
        )

    @property
    def state_info(self) -> list[StateInfo]:
        """Two states: the output, and the cell's memory."""
        return [_state(self._dense.num_hidden), _state(self._dense.num_hidden)]

    @property
    def _gate_names(self) -> tuple[str, ...]:
        return ("_i", "_f", "_c", "_o")

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Add one step."""
        self._counter += 1
        name = f"{self._prefix}t{self._counter}_"
        total = self._dense.input(inputs, name) + self._dense.hidden(states[0], name)
        return lstm_step(total, states[1], "tanh", name)


class GRUCell(BaseRNNCell):
    """Gated recurrent unit, with the reset gate behind the projection as in cuDNN.

    h' = (1 - z) * tanh(W x + b + r * (R h + c)) + z * h; sigmoid on r and z.

    Args:
        num_hidden: Size of the state and the output.
        prefix: Put before all names.
        params: Variables to share.
    """

    def __init__(
        self, num_hidden: int, prefix: str = "gru_", params: RNNParams | None = None
    ) -> None:
        super().__init__(prefix, params)
        self._dense = _Projections(self._params, num_hidden, gates=3)

    @property
    def state_info(self) -> list[StateInfo]:
        """One state, the output."""
        return [_state(self._dense.num_hidden)]

    @property
    def _gate_names(self) -> tuple[str, ...]:
        return ("_r", "_z", "_o")

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Add one step."""
        self._counter += 1
        # MXNet's names: `gru_t0__i2h` has two underscores, `gru_t0_out` one.
        name = f"{self._prefix}t{self._counter}_"
        i2h = self._dense.input(inputs, f"{name}_")
        h2h = self._dense.hidden(states[0], f"{name}_")
        return gru_step(i2h, h2h, states[0], "tanh", name)


def lstm_step(
    total: Symbol, memory: Symbol, activation: Activation, name: str, **slicing: int
) -> tuple[Symbol, list[Symbol]]:
    """What an LSTM does with its projections.

    Args:
        total: The sum of both projections: gates i, f, c, o one after another.
        memory: The cell's memory of the step before.
        activation: Of what is put into the memory, and of what is read from it.
        name: What names begin with.
        **slicing: Along which `axis` the gates lie, if it is not the second.
    """
    i, f, c, o = symbol.SliceChannel(
        total, num_outputs=4, name=f"{name}slice", **slicing
    )
    in_gate = activate(i, "sigmoid", f"{name}i")
    forget_gate = activate(f, "sigmoid", f"{name}f")
    transform = activate(c, activation, f"{name}c")
    out_gate = activate(o, "sigmoid", f"{name}o")
    memory = symbol.elemwise_add(
        forget_gate * memory, in_gate * transform, name=f"{name}state"
    )
    output = symbol.elemwise_mul(
        out_gate, activate(memory, activation), name=f"{name}out"
    )
    return output, [output, memory]


def gru_step(
    i2h: Symbol, h2h: Symbol, state: Symbol, activation: Activation, name: str
) -> tuple[Symbol, list[Symbol]]:
    """What a GRU does with its projections.

    Args:
        i2h: That of the input: gates r and z and the new state, one after another.
        h2h: That of the state, in the same order.
        state: The state of the step before.
        activation: Of the new state.
        name: What names begin with.
    """
    i2h_r, i2h_z, i2h_o = symbol.SliceChannel(
        i2h, num_outputs=3, name=f"{name}_i2h_slice"
    )
    h2h_r, h2h_z, h2h_o = symbol.SliceChannel(
        h2h, num_outputs=3, name=f"{name}_h2h_slice"
    )
    reset_gate = activate(i2h_r + h2h_r, "sigmoid", f"{name}_r_act")
    update_gate = activate(i2h_z + h2h_z, "sigmoid", f"{name}_z_act")
    fresh = activate(i2h_o + reset_gate * h2h_o, activation, f"{name}_h_act")
    output = symbol.elemwise_add(
        (1.0 - update_gate) * fresh, update_gate * state, name=f"{name}out"
    )
    return output, [output]


def activate(inputs: Symbol, activation: Activation, name: str | None = None) -> Symbol:
    """Apply `Activation` of a kind, or a function of a symbol."""
    if isinstance(activation, str):
        return symbol.Activation(inputs, act_type=activation, name=name)
    return activation(inputs, name=name)


class _Projections:
    """The two dense layers of a cell: of its input, and of its state."""

    def __init__(
        self,
        params: RNNParams,
        num_hidden: int,
        gates: int = 1,
        input_bias: LSTMBias | None = None,
    ) -> None:
        self.num_hidden = num_hidden
        self._rows = num_hidden * gates
        self._i2h = (params.get("i2h_weight"), params.get("i2h_bias", init=input_bias))
        self._h2h = (params.get("h2h_weight"), params.get("h2h_bias"))

    def input(self, inputs: Symbol, name: str) -> Symbol:
        return symbol.FullyConnected(
            inputs, *self._i2h, num_hidden=self._rows, name=f"{name}i2h"
        )

    def hidden(self, state: Symbol, name: str) -> Symbol:
        return symbol.FullyConnected(
            state, *self._h2h, num_hidden=self._rows, name=f"{name}h2h"
        )


def _state(num_hidden: int) -> StateInfo:
    return {"shape": (0, num_hidden), "__layout__": "NC"}
