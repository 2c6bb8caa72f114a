"""Deconvolution: the transpose of Convolution, in one, two or three dimensions.

Its output is what a convolution with the same weight would have read to give its
input, so both directions are those of Convolution, exchanged.

Source: MXNet's `src/operator/nn/deconvolution-inl.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
from runtime.ops.convolution import (
    Convolution,
    Layout,
    check_layout,
    convolve,
    convolve_backward,
)
from runtime.ops.rules import accumulator
from runtime.ops.windows import filled

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Deconvolution:
    """Attributes of Deconvolution.

    Attributes:
        adj: Added to the output's sizes; below `stride`.
        target_shape: The output's sizes; if given, `pad` and `adj` follow from it.
    """

    kernel: tuple[int, ...]
    num_filter: int
    stride: tuple[int, ...] = ()
    dilate: tuple[int, ...] = ()
    pad: tuple[int, ...] = ()
    adj: tuple[int, ...] = ()
    target_shape: tuple[int, ...] = ()
    num_group: int = 1
    workspace: int = 512
    no_bias: bool = True
    cudnn_tune: Literal["fastest", "limited_workspace", "off"] | None = None
    cudnn_off: bool = False
    layout: Layout = None


def _geometry(p: Deconvolution, size: Sizes) -> tuple[Sizes, Sizes]:
    """The output's sizes, and the padding."""
    rank = len(p.kernel)
    stride, dilate = filled(p.stride, rank, 1), filled(p.dilate, rank, 1)
    pad, adj = filled(p.pad, rank, 0), filled(p.adj, rank, 0)
    target = filled(p.target_shape, rank, 0)
    for name, values in (
        ("stride", stride),
        ("dilate", dilate),
        ("pad", pad),
        ("adj", adj),
        ("target_shape", target),
        ("data.shape[2:]", size),
    ):
        if len(values) != rank:
            raise ShapeError(
                f"`{name}` (={values}) must have as many entries as `kernel` "
                f"(={p.kernel})"
            )
    whole = tuple(
        s * (n - 1) + d * (k - 1) + 1
        for s, n, d, k in zip(stride, size, dilate, p.kernel, strict=True)
    )
    if any(target):
        excess = [w - t for w, t in zip(whole, target, strict=True)]
        if min(excess) < 0:
            raise ShapeError(f"`target_shape` (={target}) must not exceed {whole}")
        return target, tuple((n + 1) // 2 for n in excess)
    if any(a >= s for a, s in zip(adj, stride, strict=True)):
        raise ShapeError(f"`adj` (={adj}) must be below `stride` (={stride})")
    result = tuple(w - 2 * q + a for w, q, a in zip(whole, pad, adj, strict=True))
    if min(result) < 1:
        raise ShapeError(f"`pad` (={pad}) leaves nothing of an output of {whole}")
    return result, pad


def _transposed(p: Deconvolution, data: Array | tuple[int, ...]) -> Convolution:
    """The convolution from output to input."""
    shape = data if isinstance(data, tuple) else data.shape
    _, pad = _geometry(p, shape[2:])
    return Convolution(
        kernel=p.kernel,
        num_filter=shape[1],
        stride=p.stride,
        dilate=p.dilate,
        pad=pad,
        num_group=p.num_group,
        no_bias=True,
    )


def _shape(p: Deconvolution, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    check_layout(p.layout)
    data, weight, *bias = inputs
    (output,) = outputs
    bias = [unify(shape, (p.num_filter,), "bias") for shape in bias]
    if data is None:
        return [data, weight, *bias], outputs
    for name, value in (("the channels", data[1]), ("`num_filter`", p.num_filter)):
        if value % p.num_group:
            raise ShapeError(
                f"{name} (={value}) must be divisible by `num_group` (={p.num_group})"
            )
    filters = p.num_filter // p.num_group
    weight = unify(weight, (data[1], filters, *p.kernel), "weight")
    if 0 not in data[2:]:
        sizes, _ = _geometry(p, data[2:])
        output = unify(output, (data[0], p.num_filter, *sizes), "output")
    return [data, weight, *bias], [output]


def deconvolve(
    p: Deconvolution, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    """The definition of Deconvolution."""
    data, weight, *bias = inputs
    (output,) = outputs
    # Of its input the gradient rule reads the shape alone.
    transposed = _transposed(p, data)
    convolve_backward(transposed, [data], [output, weight], [], [output, None], mode)
    if bias:
        output += bias[0].reshape(-1, *[1] * len(p.kernel))


def deconvolve_backward(
    p: Deconvolution,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    """The gradient rule of Deconvolution."""
    data, weight = inputs[:2]
    (grad,) = grads_out
    transposed = _transposed(p, data)
    if grads_in[0] is not None:
        convolve(transposed, [grad, weight], [grads_in[0]], mode)
    if grads_in[1] is not None:
        convolve_backward(
            transposed, [data], [grad, weight], [], [None, grads_in[1]], mode
        )
    if not p.no_bias and grads_in[2] is not None:
        axes = (0, *range(2, grad.ndim))
        grads_in[2][...] = grad.sum(axis=axes, dtype=accumulator(grad.dtype))


register(
    Operator(
        name="Deconvolution",
        attributes=Deconvolution,
        inputs=lambda p: (
            ("data", "weight") if p.no_bias else ("data", "weight", "bias")
        ),
        shape=_shape,
        forward=deconvolve,
        backward=deconvolve_backward,
        saved=Saved(inputs=(0, 1)),
    )
)
