"""The parameter vector of fused recurrent layers, and its parts by name.

For each layer and direction the weights of input and hidden projection, gate by gate;
after all weights, in the same order, the biases (MXNet's operator RNN).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from asyncmod.errors import ArgumentError

Array = np.ndarray[Any, np.dtype[Any]]

GATES = {
    "rnn_relu": ("",),
    "rnn_tanh": ("",),
    "lstm": ("_i", "_f", "_c", "_o"),
    "gru": ("_r", "_z", "_o"),
}


@dataclass(frozen=True)
class FusedLayers:
    """What the layers are.

    Attributes:
        num_hidden: Size of a state.
        num_layers: Layers, one over another.
        mode: `rnn_relu`, `rnn_tanh`, `lstm` or `gru`.
        bidirectional: Whether each layer reads in both directions.

    Raises:
        ArgumentError: another mode.
    """

    num_hidden: int
    num_layers: int
    mode: str
    bidirectional: bool

    def __post_init__(self) -> None:
        if self.mode not in GATES:
            raise ArgumentError(
                f"`mode` is {self.mode!r}; it must be one of {', '.join(GATES)}"
            )

    @property
    def directions(self) -> tuple[str, ...]:
        """`l` is from left to right in time, `r` from right to left."""
        return ("l", "r") if self.bidirectional else ("l",)

    def parts(self, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names (`l0_i2h_f_weight`) and shapes, in the vector's order."""
        h = self.num_hidden
        for kind in ("weight", "bias"):
            for layer in range(self.num_layers):
                width = channels if layer == 0 else h * len(self.directions)
                for direction in self.directions:
                    for group, columns in (("i2h", width), ("h2h", h)):
                        shape = (h, columns) if kind == "weight" else (h,)
                        for gate in GATES[self.mode]:
                            yield f"{direction}{layer}_{group}{gate}_{kind}", shape

    def channels(self, length: int) -> int:
        """The size of the inputs, from the length of the vector.

        Raises:
            ArgumentError: no size of the inputs gives this length.
        """
        without = sum(prod(shape) for _, shape in self.parts(0))
        rows = self.num_hidden * len(GATES[self.mode]) * len(self.directions)
        channels, rest = divmod(length - without, rows)
        if rest or channels < 1:
            raise ArgumentError(
                f"a parameter vector of {length} numbers does not fit {self}"
            )
        return channels

    def split(self, vector: Array) -> dict[str, Array]:
        """The parts by name; writing to them writes to the vector.

        Raises:
            ArgumentError: the vector's length does not fit.
        """
        parts = {}
        position = 0
        for name, shape in self.parts(self.channels(len(vector))):
            end = position + prod(shape)
            parts[name] = vector[position:end].reshape(shape)
            position = end
        return parts
