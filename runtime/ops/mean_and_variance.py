"""moments: mean and variance (of the population) over some axes.

Source: MXNet's `src/operator/nn/moments-inl.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from runtime.errors import ShapeError
from runtime.graph.registry import Array, Mode, Operator, Saved, Shapes, register
from runtime.graph.shapes import unify
from runtime.ops.reduce import Reduction, kept_shape, reduced_axes
from runtime.ops.rules import accumulator


@dataclass(frozen=True)
class Moments:
    """Attributes: `axes` that go, or stay as 1 with `keepdims`."""

    axes: tuple[int, ...] | None = None
    keepdims: bool = False


def _reduction(p: Moments) -> Reduction:
    return Reduction(p.axes, p.keepdims)


def _shape(p: Moments, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    if not p.axes:
        raise ShapeError("`axes` must name one axis or more")
    (data,) = inputs
    if data is None:
        return inputs, outputs
    gone = () if p.keepdims else reduced_axes(_reduction(p), len(data))
    kept = kept_shape(_reduction(p), data)
    shape = tuple(n for i, n in enumerate(kept) if i not in gone) or (1,)
    return inputs, [unify(output, shape, "output") for output in outputs]


def _forward(
    p: Moments, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    (data,), (mean, variance) = inputs, outputs
    axes, wide = reduced_axes(_reduction(p), data.ndim), accumulator(data.dtype)
    mean[...] = data.mean(axis=axes, dtype=wide).reshape(mean.shape)
    variance[...] = data.var(axis=axes, dtype=wide).reshape(variance.shape)


def _backward(
    p: Moments,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    (data,), (gradient,) = inputs, grads_in
    kept = kept_shape(_reduction(p), data.shape)
    mean_slope, variance_slope = (
        0 if head is None else head.reshape(kept) for head in grads_out
    )
    count = data.size // prod(kept)
    centered = data - outputs[0].reshape(kept)
    gradient[...] = (mean_slope + 2 * centered * variance_slope) / count


register(
    Operator(
        name="moments",
        attributes=Moments,
        outputs=("output0", "output1"),
        shape=_shape,
        forward=_forward,
        backward=_backward,
        saved=Saved(inputs=(0,), outputs=(0,)),
    )
)
