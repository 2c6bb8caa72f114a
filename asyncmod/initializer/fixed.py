"""Initializers without chance: constants, bilinear kernels, LSTM biases."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncmod.initializer.base import (
    Array,
    Initializer,
    alias,
    bilinear_kernel,
    register,
)


@alias("zeros")
@register
class Zero(Initializer):
    """Weights of 0."""

    def __init__(self) -> None:
        super().__init__()

    def _init_weight(self, name: str, arr: Array) -> None:
        arr[...] = 0.0


@alias("ones")
@register
class One(Initializer):
    """Weights of 1."""

    def __init__(self) -> None:
        super().__init__()

    def _init_weight(self, name: str, arr: Array) -> None:
        arr[...] = 1.0


@register
class Constant(Initializer):
    """Weights of one value, or those of an array of the parameter's shape.

    Args:
        value: A number, or an array.
    """

    def __init__(self, value: Any) -> None:
        plain = np.asarray(value).tolist() if np.ndim(value) else value
        super().__init__(value=plain)
        self.value = value

    def _init_weight(self, name: str, arr: Array) -> None:
        arr[...] = self.value


@register
class Bilinear(Initializer):
    """Kernels of a Deconvolution that upsamples bilinearly."""

    def __init__(self) -> None:
        super().__init__()

    def _init_weight(self, name: str, arr: Array) -> None:
        arr[...] = bilinear_kernel(arr.shape)


@register
class LSTMBias(Initializer):
    """0, and `forget_bias` in the second quarter: the forget gates of an LSTM cell.

    Args:
        forget_bias: Their value.
    """

    def __init__(self, forget_bias: float = 1.0) -> None:
        super().__init__(forget_bias=forget_bias)
        self.forget_bias = forget_bias

    def _init_weight(self, name: str, arr: Array) -> None:
        quarter = arr.shape[0] // 4
        arr[...] = 0.0
        arr[quarter : 2 * quarter] = self.forget_bias
