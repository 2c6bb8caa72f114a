"""UpSampling: larger images, by repetition or by a bilinear kernel that is learned.

Source: MXNet's `src/operator/nn/upsampling-inl.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import is_known, unify
from runtime.ops.deconvolution import Deconvolution, deconvolve, deconvolve_backward
from runtime.ops.lookup import Lookup


@dataclass(frozen=True)
class UpSampling:
    """Attributes; several inputs all get the size of the first times `scale`."""

    scale: int
    sample_type: Literal["nearest", "bilinear"]
    num_args: int = 1
    num_filter: int = 0
    multi_input_mode: Literal["concat", "sum"] = "concat"
    workspace: int = 512


def _inputs(p: UpSampling) -> tuple[str, ...]:
    if p.sample_type == "bilinear":
        return ("data", "weight")
    if p.num_args == 1:
        return ("data",)
    return tuple(f"arg{i}" for i in range(p.num_args))


def _kernel(p: UpSampling, channels: int) -> Deconvolution:
    size = 2 * p.scale - p.scale % 2
    return Deconvolution(
        kernel=(size, size),
        num_filter=channels,
        stride=(p.scale, p.scale),
        pad=(p.scale // 2, p.scale // 2),
        num_group=channels,
    )


def _lookup(p: UpSampling, shape: tuple[int, ...], target: tuple[int, ...]) -> Lookup:
    positions: list[Any] = [None, None]
    for size, wanted in zip(shape[2:], target, strict=True):
        if wanted % size:
            raise ShapeError(
                f"the output's size {wanted} must be a multiple of the input's {size}"
            )
        positions.append(np.repeat(np.arange(size), wanted // size))
    return Lookup(shape, tuple(positions))


def _target(p: UpSampling, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n * p.scale for n in shape[2:])


def _shape(p: UpSampling, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    if p.scale < 1:
        raise ShapeError(f"`scale` (={p.scale}) must be positive")
    first = inputs[0]
    if not is_known(first):
        return inputs, outputs
    if len(first) != 4:
        raise ShapeError(f"`data` must have 4 dimensions, but has shape {first}")
    channels = first[1]
    if p.sample_type == "bilinear":
        kernel = _kernel(p, channels).kernel
        weight = unify(inputs[1], (channels, 1, *kernel), "weight")
        inputs = [first, weight]
    else:
        known = [shape for shape in inputs if is_known(shape)]
        if len(known) < len(inputs):
            return inputs, outputs
        for shape in known:
            _lookup(p, shape, _target(p, first))
        if p.multi_input_mode == "concat":
            channels = sum(shape[1] for shape in known)
    shape = (first[0], channels, *_target(p, first))
    return inputs, [unify(outputs[0], shape, "output")]


def _forward(
    p: UpSampling, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    if p.sample_type == "bilinear":
        deconvolve(_kernel(p, inputs[0].shape[1]), inputs, outputs, mode)
        return
    target = outputs[0].shape[2:]
    images = [_lookup(p, x.shape, target).read(x) for x in inputs]
    if p.multi_input_mode == "concat":
        np.concatenate(images, axis=1, out=outputs[0])
    else:
        outputs[0][...] = sum(images)


def _backward(
    p: UpSampling,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    (grad,) = grads_out
    if p.sample_type == "bilinear":
        kernel = _kernel(p, grad.shape[1])
        deconvolve_backward(kernel, grads_out, inputs, outputs, grads_in, mode)
        return
    start = 0
    for data, target in zip(inputs, grads_in, strict=True):
        part = grad
        if p.multi_input_mode == "concat":
            part = grad[:, start : start + data.shape[1]]
            start += data.shape[1]
        if target is not None:
            target[...] = _lookup(p, data.shape, grad.shape[2:]).add_up(part)


register(
    Operator(
        name="UpSampling",
        attributes=UpSampling,
        inputs=_inputs,
        shape=_shape,
        forward=_forward,
        backward=_backward,
        # Nearest reads its inputs for their sizes only.
        saved=lambda p: Saved(inputs=tuple(range(len(_inputs(p))))),
        variadic=True,
        parameter_defaults={"weight": {"__init__": '["bilinear", {}]'}},
    )
)
