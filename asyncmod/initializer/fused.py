"""Initializer of the parameter vector of fused recurrent layers."""

from __future__ import annotations

from typing import Any

from asyncmod.initializer.base import (
    Array,
    InitDesc,
    Initializer,
    InitializerError,
    create,
    register,
)
from asyncmod.rnn.fused_weights import FusedLayers


@register
class FusedRNN(Initializer):
    """Each weight and bias in the vector as if it were a parameter of its own.

    Args:
        init: Initializer of the parts, an object or its `dumps()`; None: the one that
            was asked first.
        num_hidden: Size of a state.
        num_layers: Layers, one over another.
        mode: `rnn_relu`, `rnn_tanh`, `lstm` or `gru`.
        bidirectional: Whether each layer reads in both directions.
        forget_bias: The bias of an LSTM's forget gates.
    """

    def __init__(
        self,
        init: Any,
        num_hidden: int,
        num_layers: int,
        mode: str,
        bidirectional: bool = False,
        forget_bias: float = 1.0,
    ) -> None:
        self._init = None if init is None else create(init)
        super().__init__(
            init=None if self._init is None else self._init.dumps(),
            num_hidden=num_hidden,
            num_layers=num_layers,
            mode=mode,
            bidirectional=bidirectional,
            forget_bias=forget_bias,
        )
        self._layers = FusedLayers(num_hidden, num_layers, mode, bidirectional)
        self._forget_bias = forget_bias

    def _init_weight(self, name: str, arr: Array) -> None:
        asked_first = name.global_init if isinstance(name, InitDesc) else None
        initializer = self._init or asked_first
        if initializer is None or isinstance(initializer, FusedRNN):
            raise InitializerError(
                f"FusedRNN needs an initializer for the parts of `{name}`: "
                "FusedRNN('xavier', ...)"
            )
        for part, values in self._layers.split(arr).items():
            if part.endswith("_f_bias"):
                values[...] = self._forget_bias
            else:
                initializer(InitDesc(part, global_init=asked_first), values)
