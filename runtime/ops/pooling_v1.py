"""Pooling_v1: MXNet's older pooling, as old symbol files name it.

An average is by the size of the kernel, however much of it hangs over; a maximum reads
the padding as zeros, and everything that is as large as it gets its gradient.

Source: MXNet's `src/operator/pooling_v1-inl.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from runtime.graph.registry import Array, Mode, Operator, Saved, Shapes, register
from runtime.ops import pooling
from runtime.ops.rules import accumulator
from runtime.ops.windows import Index, Windows


@dataclass(frozen=True)
class PoolingV1:
    """Attributes; `kernel` is not read if `global_pool`."""

    kernel: tuple[int, ...] = ()
    pool_type: Literal["max", "avg", "sum"] = "max"
    global_pool: bool = False
    pooling_convention: Literal["valid", "full"] = "valid"
    stride: tuple[int, ...] = ()
    pad: tuple[int, ...] = ()

    def sums(self) -> pooling.Pooling:
        """Sums over the same windows."""
        return pooling.Pooling(
            kernel=self.kernel,
            pool_type="sum",
            global_pool=self.global_pool,
            pooling_convention=self.pooling_convention,
            stride=self.stride,
            pad=self.pad,
        )

    def scale(self, data: Array) -> float:
        """What sums are multiplied by."""
        if self.pool_type == "sum":
            return 1
        return 1 / prod(data.shape[2:] if self.global_pool else self.kernel)


def _shape(p: PoolingV1, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    return pooling.shape(p.sums(), inputs, outputs)


def _forward(
    p: PoolingV1, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    (data,), (output,) = inputs, outputs
    windows = pooling.geometry(p.sums(), data.shape[2:])
    if p.pool_type == "max":
        output[...] = pooling.fold(np.maximum, _candidates(windows, data), windows)
    else:
        padded = windows.padded(data, 0, accumulator(data.dtype))
        output[...] = pooling.fold(np.add, padded, windows) * p.scale(data)


def _candidates(windows: Windows, data: Array) -> Array:
    """What maxima are taken of: with padding, but nothing behind it."""
    padded = windows.padded(data, -np.inf, accumulator(data.dtype))
    ends = zip(windows.size, windows.pad, strict=True)
    bordered: Index = (..., *(slice(size + 2 * pad) for size, pad in ends))
    padded[bordered] = 0
    padded[windows.inside] = data
    return padded


def _backward(
    p: PoolingV1,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    (gradient,), (head,) = grads_in, grads_out
    wide = accumulator(gradient.dtype)
    if p.pool_type != "max":
        head = np.multiply(head, p.scale(gradient), dtype=wide)
        pooling.backward(p.sums(), [head], [], [], grads_in, mode)
        return
    windows = pooling.geometry(p.sums(), gradient.shape[2:])
    padded = _candidates(windows, inputs[0])
    scattered = np.zeros_like(padded)
    for tap in windows.taps():
        scattered[tap] += np.where(padded[tap] == outputs[0], head, 0)
    gradient[...] = scattered[windows.inside]


register(
    Operator(
        name="Pooling_v1",
        attributes=PoolingV1,
        shape=_shape,
        forward=_forward,
        backward=_backward,
        saved=lambda p: Saved((0,), (0,)) if p.pool_type == "max" else Saved(),
    )
)
