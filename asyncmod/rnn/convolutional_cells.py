"""Cells whose states are images, and whose projections are convolutions.

Source: Shi et al., "Convolutional LSTM Network", 2015, and MXNet's `rnn_cell.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from asyncmod import symbol
from asyncmod.errors import ArgumentError
from asyncmod.rnn.base import Activation, BaseRNNCell, StateInfo
from asyncmod.rnn.cells import activate, gru_step, lstm_step
from asyncmod.rnn.parameters import RNNParams
from asyncmod.symbol import Symbol

Pair = tuple[int, int]


def _leaky(inputs: Symbol, name: str | None = None) -> Symbol:
    return symbol.LeakyReLU(inputs, act_type="leaky", slope=0.2, name=name)


class BaseConvRNNCell(BaseRNNCell):
    """What the convolutional cells have in common.

    Args:
        input_shape: Of one step's input, with any size for the batch.
        num_hidden: Channels of states and output.
        h2h_kernel, h2h_dilate: Of the convolution of the state, which keeps its size;
            the kernel's sizes are odd.
        i2h_kernel, i2h_stride, i2h_pad, i2h_dilate: Of the convolution of the input.
        i2h_weight_initializer, h2h_weight_initializer: Of the kernels.
        i2h_bias_initializer, h2h_bias_initializer: Of the biases.
        activation: Name for `Activation`, or a function of a symbol.
        prefix: Put before all names.
        params: Variables to share.
        conv_layout: Of inputs and states.

    Raises:
        ArgumentError: a size of `h2h_kernel` is even.
    """

    _gates: tuple[str, ...] = ("",)
    _prefix_of_kind = ""

    def __init__(
        self,
        input_shape: Sequence[int],
        num_hidden: int,
        h2h_kernel: Pair = (3, 3),
        h2h_dilate: Pair = (1, 1),
        i2h_kernel: Pair = (3, 3),
        i2h_stride: Pair = (1, 1),
        i2h_pad: Pair = (1, 1),
        i2h_dilate: Pair = (1, 1),
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        activation: Activation = _leaky,
        prefix: str | None = None,
        params: RNNParams | None = None,
        conv_layout: str = "NCHW",
    ) -> None:
        super().__init__(self._prefix_of_kind if prefix is None else prefix, params)
        if any(size % 2 == 0 for size in h2h_kernel):
            raise ArgumentError(
                f"the sizes of `h2h_kernel` (={h2h_kernel}) must be odd, so that the "
                "states keep theirs"
            )
        pad = tuple(
            dilate * (size - 1) // 2
            for dilate, size in zip(h2h_dilate, h2h_kernel, strict=True)
        )
        self._activation = activation
        self._layout = conv_layout
        convolution = partial(
            symbol.Convolution,
            num_filter=num_hidden * len(self._gates),
            layout=conv_layout,
        )
        self._input = partial(
            convolution,
            kernel=i2h_kernel,
            stride=i2h_stride,
            pad=i2h_pad,
            dilate=i2h_dilate,
        )
        self._hidden = partial(
            convolution, kernel=h2h_kernel, dilate=h2h_dilate, pad=pad, stride=(1, 1)
        )
        with symbol.NameManager():
            probe = self._input(symbol.Variable("data"), num_filter=num_hidden)
            _, shapes, _ = probe.infer_shape(data=(1, *input_shape[1:]))
        assert shapes is not None  # all sizes but that of the batch are given
        self._state_shape = (0, *shapes[0][1:])
        get = self._params.get
        self._i2h = {
            "weight": get("i2h_weight", init=i2h_weight_initializer),
            "bias": get("i2h_bias", init=i2h_bias_initializer),
        }
        self._h2h = {
            "weight": get("h2h_weight", init=h2h_weight_initializer),
            "bias": get("h2h_bias", init=h2h_bias_initializer),
        }

    @property
    def state_info(self) -> list[StateInfo]:
        """One state, the output."""
        return [{"shape": self._state_shape, "__layout__": self._layout}]

    @property
    def _gate_names(self) -> tuple[str, ...]:
        return self._gates

    def _project(self, inputs: Symbol, state: Symbol) -> tuple[Symbol, Symbol, str]:
        """Convolutions of input and state, and what the step's names begin with."""
        self._counter += 1
        name = f"{self._prefix}t{self._counter}_"
        i2h = self._input(inputs, **self._i2h, name=f"{name}i2h")
        h2h = self._hidden(state, **self._h2h, name=f"{name}h2h")
        return i2h, h2h, name


class ConvRNNCell(BaseConvRNNCell):
    """h' = activation(W * x + b + R * h + c); see `BaseConvRNNCell` for arguments."""

    _prefix_of_kind = "ConvRNN_"

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Add one step."""
        i2h, h2h, name = self._project(inputs, states[0])
        output = activate(i2h + h2h, self._activation, f"{name}out")
        return output, [output]


class ConvLSTMCell(BaseConvRNNCell):
    """`LSTMCell` with convolutions; see `BaseConvRNNCell` for arguments."""

    _gates = ("_i", "_f", "_c", "_o")
    _prefix_of_kind = "ConvLSTM_"

    @property
    def state_info(self) -> list[StateInfo]:
        """Two states: the output, and the cell's memory."""
        return [*super().state_info, *super().state_info]

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Add one step."""
        i2h, h2h, name = self._project(inputs, states[0])
        axis = self._layout.find("C")
        return lstm_step(i2h + h2h, states[1], self._activation, name, axis=axis)


class ConvGRUCell(BaseConvRNNCell):
    """`GRUCell` with convolutions; see `BaseConvRNNCell` for arguments."""

    _gates = ("_r", "_z", "_o")
    _prefix_of_kind = "ConvGRU_"

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Add one step."""
        i2h, h2h, name = self._project(inputs, states[0])
        return gru_step(i2h, h2h, states[0], self._activation, name)
