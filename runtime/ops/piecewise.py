"""Functions of one array that have attributes of their own, element by element.

Sources: MXNet's `src/operator/tensor/matrix_op-inl.h`,
`src/operator/tensor/elemwise_unary_op.h` and `src/operator/mshadow_op.h`; smooth_l1:
Girshick, "Fast R-CNN", 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.graph.registry import Array, Mode, Operator, Saved, register
from runtime.ops.rules import one_shape


@dataclass(frozen=True)
class Clip:
    """Attributes of clip."""

    a_min: float
    a_max: float


@dataclass(frozen=True)
class SmoothL1:
    """Attributes of smooth_l1: quadratic within 1 / scalar^2 around 0."""

    scalar: float = 1.0
    is_int: bool = True


@dataclass(frozen=True)
class HardSigmoid:
    """Attributes of hard_sigmoid: alpha * x + beta, clipped to 0..1."""

    alpha: float = 0.2
    beta: float = 0.5


def _clip_slope(p: Clip, x: Array) -> Array:
    return (x >= p.a_min) & (x <= p.a_max)


def _smooth_l1(p: SmoothL1, x: Array) -> Array:
    square = p.scalar * p.scalar
    size = np.abs(x)
    return np.where(size * square < 1, square * x * x / 2, size - 0.5 / square)


def _smooth_l1_slope(p: SmoothL1, x: Array) -> Array:
    square = p.scalar * p.scalar
    return np.where(np.abs(x) * square < 1, square * x, np.sign(x))


def _hard_sigmoid(p: HardSigmoid, x: Array) -> Array:
    return np.clip(p.alpha * x + p.beta, 0, 1)


def _hard_sigmoid_slope(p: HardSigmoid, x: Array) -> Array:
    y = p.alpha * x + p.beta
    return np.where((y > 0) & (y < 1), p.alpha, 0)


def _register(
    name: str,
    attributes: type,
    function: Callable[[Any, Array], Array],
    slope: Callable[[Any, Array], Array],
) -> None:
    def forward(
        p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        outputs[0][...] = function(p, inputs[0])

    def backward(
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        grads_in[0][...] = grads_out[0] * slope(p, inputs[0])

    register(
        Operator(
            name=name,
            attributes=attributes,
            shape=one_shape,
            forward=forward,
            backward=backward,
            saved=Saved(inputs=(0,)),
        )
    )


_register("clip", Clip, lambda p, x: np.clip(x, p.a_min, p.a_max), _clip_slope)
_register("smooth_l1", SmoothL1, _smooth_l1, _smooth_l1_slope)
_register("hard_sigmoid", HardSigmoid, _hard_sigmoid, _hard_sigmoid_slope)
