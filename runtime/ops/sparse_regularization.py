"""IdentityAttachKLSparseReg: the identity, with a gradient that keeps units sparse.

What is added to the gradient is the slope of the Kullback-Leibler divergence between
the target and a unit's mean activation, as in MXNet's operator of this name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import ShapeError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import unify
from runtime.ops.rules import accumulator


@dataclass(frozen=True)
class IdentityAttachKLSparseReg:
    """Attributes of IdentityAttachKLSparseReg; the data are (row, unit), from 0 to 1.

    Attributes:
        sparseness_target: The mean that each unit is drawn to, from 0 to 1.
        penalty: The factor of what is added to the gradient.
        momentum: How much of the moving average stays at each step, from 0 to 1.
    """

    sparseness_target: float = 0.1
    penalty: float = 0.001
    momentum: float = 0.9


def _shape(
    p: IdentityAttachKLSparseReg, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    for name in ("sparseness_target", "momentum"):
        if not 0 <= getattr(p, name) <= 1:
            raise ShapeError(f"`{name}` (={getattr(p, name)}) must be from 0 to 1")
    data: Any = unify(unify(inputs[0], (0, 0), "data"), outputs[0], "data")
    average: Any = unify(unify(inputs[1], data[1:], "moving_avg"), outputs[1])
    return [(data[0], average[0]), average], [(data[0], average[0]), average]


def _forward(
    p: IdentityAttachKLSparseReg,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    mode: Mode,
) -> None:
    data, average = inputs
    wide = accumulator(data.dtype)
    mean = data.mean(axis=0, dtype=wide)
    outputs[0][...] = data
    # The moving average after this step: what the gradient reads, and the next state.
    for target in outputs[1:]:
        target[...] = p.momentum * average.astype(wide) + (1 - p.momentum) * mean


def _backward(
    p: IdentityAttachKLSparseReg,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    """The slope of KL(target, average), given to each row undivided, as in MXNet."""
    average = outputs[1].astype(accumulator(outputs[1].dtype), copy=False)
    target = p.sparseness_target
    slope = (1 - target) / (1 - average) - target / average
    grads_in[0][...] = grads_out[0] + p.penalty * slope


register(
    Operator(
        name="IdentityAttachKLSparseReg",
        attributes=IdentityAttachKLSparseReg,
        inputs=("data", "moving_avg"),
        auxiliary=("moving_avg",),
        outputs=("output", "average"),
        visible=1,
        shape=_shape,
        forward=_forward,
        backward=_backward,
        saved=Saved(outputs=(1,)),
        parameter_defaults={"moving_avg": {"__init__": '["zero", {}]'}},
    )
)
