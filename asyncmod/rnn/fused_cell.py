"""FusedRNNCell: whole recurrent layers as one operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asyncmod import symbol
from asyncmod.errors import ArgumentError, UnsupportedError
from asyncmod.initializer.fused import FusedRNN
from asyncmod.nd import NDArray
from asyncmod.rnn import sequence
from asyncmod.rnn.base import BaseRNNCell, Parameters, StateInfo
from asyncmod.rnn.cells import GRUCell, LSTMCell, RNNCell
from asyncmod.rnn.combined_cells import BidirectionalCell, SequentialRNNCell
from asyncmod.rnn.fused_weights import FusedLayers
from asyncmod.rnn.modifier_cells import DropoutCell
from asyncmod.rnn.parameters import RNNParams
from asyncmod.rnn.sequence import Steps
from asyncmod.symbol import Symbol


class FusedRNNCell(BaseRNNCell):
    """Layers of one kind in one operator, `RNN`; only `unroll` works.

    Args:
        num_hidden: Size of a state, and of the output of one direction.
        num_layers: Layers, one over another.
        mode: `rnn_relu`, `rnn_tanh`, `lstm` or `gru`.
        bidirectional: Read in both directions; outputs side by side.
        dropout: The share of values between layers that become 0 in training.
        get_next_state: Whether `unroll` returns the states after the last step.
        forget_bias: Where the bias of an LSTM's forget gates begins.
        prefix: Put before all names; the mode unless given.
        params: Variables to share.

    Raises:
        ArgumentError: another mode.
    """

    def __init__(
        self,
        num_hidden: int,
        num_layers: int = 1,
        mode: str = "lstm",
        bidirectional: bool = False,
        dropout: float = 0.0,
        get_next_state: bool = False,
        forget_bias: float = 1.0,
        prefix: str | None = None,
        params: RNNParams | None = None,
    ) -> None:
        super().__init__(f"{mode}_" if prefix is None else prefix, params)
        self._layers = FusedLayers(num_hidden, num_layers, mode, bidirectional)
        self._dropout = dropout
        self._get_next_state = get_next_state
        self._forget_bias = forget_bias
        initializer = FusedRNN(
            None, num_hidden, num_layers, mode, bidirectional, forget_bias
        )
        self._parameter = self._params.get("parameters", init=initializer)

    @property
    def state_info(self) -> list[StateInfo]:
        """One state, two for an LSTM: (layers * directions, batch, size)."""
        layers = self._layers
        count = layers.num_layers * len(layers.directions)
        shape = (count, 0, layers.num_hidden)
        names = 2 if layers.mode == "lstm" else 1
        return [{"shape": shape, "__layout__": "LNC"} for _ in range(names)]

    def __call__(
        self, inputs: Symbol, states: Sequence[Symbol]
    ) -> tuple[Symbol, list[Symbol]]:
        """Not possible.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            "FusedRNNCell cannot be stepped: use unroll(), or unfuse() for cells that "
            "can"
        )

    def unroll(
        self,
        length: int,
        inputs: Steps,
        begin_state: Sequence[Symbol] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Steps, list[Symbol]]:
        """Add all steps of all layers; see `BaseRNNCell.unroll`.

        The operator reads TNC; NTC costs two transpositions.
        """
        self.reset()
        axis = sequence.time_axis(layout)
        data = sequence.merge(inputs, axis)
        if axis == 1:
            data = symbol.swapaxes(data, dim1=0, dim2=1)
        states = self.begin_state() if begin_state is None else list(begin_state)
        if len(states) != len(self.state_info):
            raise ArgumentError(
                f"{len(states)} states were given, but the cell has "
                f"{len(self.state_info)}: take those of begin_state()"
            )
        layers = self._layers
        outputs, *after = symbol.RNN(
            data,
            self._parameter,
            *states,
            state_size=layers.num_hidden,
            num_layers=layers.num_layers,
            bidirectional=layers.bidirectional,
            p=self._dropout,
            state_outputs=self._get_next_state,
            mode=layers.mode,
            name=f"{self._prefix}rnn",
        )
        if axis == 1:
            outputs = symbol.swapaxes(outputs, dim1=0, dim2=1)
        return sequence.shaped(outputs, length, axis, merge_outputs), after

    def unfuse(self) -> SequentialRNNCell:
        """Cells that compute the same step by step.

        Their weights are those of this cell, through `unpack_weights` of this cell and
        `pack_weights` of the others.
        """
        stack = SequentialRNNCell()
        layers = self._layers
        for layer in range(layers.num_layers):
            cell = self._unfused(f"{self._prefix}l{layer}_")
            if layers.bidirectional:
                backward = self._unfused(f"{self._prefix}r{layer}_")
                prefix = f"{self._prefix}bi_{layers.mode}_{layer}"
                cell = BidirectionalCell(cell, backward, output_prefix=prefix)
            stack.add(cell)
            if self._dropout > 0 and layer != layers.num_layers - 1:
                prefix = f"{self._prefix}_dropout{layer}_"
                stack.add(DropoutCell(self._dropout, prefix))
        return stack

    def _unfused(self, prefix: str) -> BaseRNNCell:
        hidden = self._layers.num_hidden
        match self._layers.mode:
            case "lstm":
                return LSTMCell(hidden, prefix, forget_bias=self._forget_bias)
            case "gru":
                return GRUCell(hidden, prefix)
            case mode:
                return RNNCell(hidden, mode.removeprefix("rnn_"), prefix)

    def unpack_weights(self, args: Mapping[str, Any]) -> Parameters:
        """The parameters with one entry per layer, direction and gate.

        Raises:
            ArgumentError: the parameter vector is missing, or of a wrong length.
        """
        unpacked = dict(args)
        vector = np.asarray(_take(unpacked, f"{self._prefix}parameters"))
        for name, part in self._layers.split(vector).items():
            unpacked[self._prefix + name] = part.copy().view(NDArray)
        return unpacked

    def pack_weights(self, args: Mapping[str, Any]) -> Parameters:
        """The inverse of `unpack_weights`.

        Raises:
            ArgumentError: a piece is missing.
        """
        packed = dict(args)
        names = [self._prefix + name for name, _ in self._layers.parts(0)]
        parts = [np.ravel(_take(packed, name)) for name in names]
        packed[f"{self._prefix}parameters"] = np.concatenate(parts).view(NDArray)
        return packed


def _take(args: dict[str, Any], name: str) -> Any:
    if name not in args:
        raise ArgumentError(
            f"`{name}` is missing: the parameters of the cell must all be there"
        )
    return args.pop(name)
