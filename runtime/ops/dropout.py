"""Dropout: in training, zero each element with probability p and scale the others.

Sources: MXNet's `src/operator/nn/dropout-inl.h`; Srivastava et al., "Dropout", 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runtime.errors import OperatorError
from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.ops.rules import one_shape


@dataclass(frozen=True)
class Dropout:
    """Attributes; `cudnn_off` has no effect.

    Attributes:
        p: Probability of an element to become zero, 0 <= p < 1.
        mode: `always` drops in prediction too.
        axes: Along these axes all elements share one draw.
    """

    p: float = 0.5
    mode: Literal["training", "always"] = "training"
    axes: tuple[int, ...] = ()
    cudnn_off: bool = False


def _shape(p: Dropout, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    if not 0 <= p.p < 1:
        raise OperatorError(f"`p` (={p.p}) must be at least 0 and below 1")
    return one_shape(p, inputs, outputs)


def _apply(p: Dropout, data: Array, output: Array, mode: Mode) -> None:
    if not (mode.is_train or p.mode == "always") or p.p == 0:
        output[...] = data
        return
    if mode.random is None:
        raise ValueError("Dropout needs random numbers here, but `mode.random` is None")
    axes = {axis % data.ndim for axis in p.axes}
    shape = tuple(1 if i in axes else n for i, n in enumerate(data.shape))
    keep = 1 - p.p
    kept = mode.random.uniform(shape) < np.float32(keep)
    np.multiply(data, kept, out=output)
    output *= output.dtype.type(1 / keep)


def _forward(
    p: Dropout, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    _apply(p, inputs[0], outputs[0], mode)


def _backward(
    p: Dropout,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    # The same numbers again, so the same mask: it need not be kept.
    _apply(p, grads_out[0], grads_in[0], mode)


register(
    Operator(
        name="Dropout",
        attributes=Dropout,
        shape=_shape,
        forward=_forward,
        backward=_backward,
        is_random=True,
    )
)
