"""Draws of classes by their probabilities.

Source: MXNet's `src/operator/random/sample_multinomial_op.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from runtime.graph.registry import Array, Mode, Operator, Saved, Shapes, register
from runtime.graph.shapes import unify
from runtime.ops.distributions import source_of
from runtime.ops.rules import Dtypes


@dataclass(frozen=True)
class Multinomial:
    """Attributes.

    Attributes:
        shape: How many draws from each row of probabilities; one without axes of its
            own if this is empty.
        get_prob: Give the logarithms of the probabilities of what was drawn, too; they
            have a gradient.
        dtype: Of what was drawn.
    """

    shape: tuple[int, ...] = ()
    get_prob: bool = False
    dtype: Literal["uint8", "int32", "float16", "float32", "float64"] = "int32"


def _multinomial_shape(
    p: Multinomial, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    (data,) = inputs
    if data is None:
        return inputs, outputs
    drawn = (*data[:-1], *p.shape) or (1,)
    return inputs, [unify(output, drawn, "output") for output in outputs]


def _multinomial_dtype(
    p: Multinomial, inputs: Dtypes, outputs: Dtypes
) -> tuple[Dtypes, Dtypes]:
    return inputs, [np.dtype(p.dtype), *inputs][: len(outputs)]


def _multinomial(
    p: Multinomial, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    (data,) = inputs
    each = max(1, prod(p.shape))
    rows = data.reshape(-1, data.shape[-1])
    bounds = np.cumsum(rows, axis=1, dtype=np.float64)
    parts = source_of(mode).uniform((*data.shape[:-1], each)).astype(np.float64)
    drawn = parts.reshape(-1, each) * bounds[:, -1:]
    classes = (bounds[:, None, :] <= drawn[:, :, None]).sum(axis=2)
    classes = np.minimum(classes, data.shape[-1] - 1)
    outputs[0][...] = classes.reshape(outputs[0].shape)
    if p.get_prob:
        found = np.take_along_axis(rows, classes, axis=1)
        outputs[1][...] = np.log(found).reshape(outputs[1].shape)


def _multinomial_gradient(
    p: Multinomial,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    (data,), (gradient,) = inputs, grads_in
    gradient[...] = 0
    if not p.get_prob or grads_out[1] is None:
        return
    rows = gradient.reshape(-1, data.shape[-1])
    probabilities = data.reshape(rows.shape)
    classes = outputs[0].reshape(len(rows), -1).astype(np.int64)
    slopes = grads_out[1].reshape(classes.shape)
    slopes = slopes / np.take_along_axis(probabilities, classes, axis=1)
    np.add.at(rows, (np.arange(len(rows))[:, None], classes), slopes)


register(
    Operator(
        name="_sample_multinomial",
        aliases=("sample_multinomial",),
        attributes=Multinomial,
        outputs=lambda p: ("output0", "output1") if p.get_prob else ("output",),
        shape=_multinomial_shape,
        dtype=_multinomial_dtype,
        forward=_multinomial,
        backward=_multinomial_gradient,
        saved=Saved(inputs=(0,), outputs=(0,)),
        is_random=True,
    )
)
