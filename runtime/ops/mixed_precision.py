"""amp_cast and amp_multicast: what MXNet's mixed precision puts between operators.

Source: MXNet's `src/operator/tensor/amp_cast.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.graph.shapes import unify
from runtime.ops.rules import Dtypes, one_shape

_NARROW, _WIDE = np.dtype(np.float16), np.dtype(np.float32)


@dataclass(frozen=True)
class AmpCast:
    """Attributes: `dtype` of the output, unless the input is neither of the two."""

    dtype: Literal["float16", "float32"]


@dataclass(frozen=True)
class AmpMulticast:
    """Attributes.

    Attributes:
        num_outputs: How many inputs there are, and outputs.
        cast_narrow: All get the narrowest dtype among them, not the widest.
    """

    num_outputs: int
    cast_narrow: bool = False


def _cast_dtype(p: AmpCast, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    (data,) = inputs
    if data is None:
        return inputs, outputs
    return inputs, [np.dtype(p.dtype) if data in (_NARROW, _WIDE) else data]


def _names(p: AmpMulticast) -> tuple[str, ...]:
    return tuple(f"data_{i}" for i in range(p.num_outputs))


def _output_names(p: AmpMulticast) -> tuple[str, ...]:
    if p.num_outputs == 1:
        return ("output",)
    return tuple(f"output{i}" for i in range(p.num_outputs))


def _each_shape(
    p: AmpMulticast, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    both = [unify(a, b) for a, b in zip(inputs, outputs, strict=True)]
    return both, both


def _common_dtype(
    p: AmpMulticast, inputs: Dtypes, outputs: Dtypes
) -> tuple[Dtypes, Dtypes]:
    if any(dtype is None for dtype in inputs):
        return inputs, outputs
    choose = min if p.cast_narrow else max
    found = choose(inputs, key=lambda dtype: dtype.itemsize)
    return inputs, [found] * len(outputs)


def _forward(
    p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    with np.errstate(over="ignore"):
        for place, array in zip(outputs, inputs, strict=True):
            place[...] = array


def _backward(
    p: Any,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    with np.errstate(over="ignore"):
        for place, head in zip(grads_in, grads_out, strict=True):
            if place is not None:
                place[...] = 0 if head is None else head


register(
    Operator(
        name="amp_cast",
        attributes=AmpCast,
        shape=one_shape,
        dtype=_cast_dtype,
        forward=_forward,
        backward=_backward,
    )
)
register(
    Operator(
        name="amp_multicast",
        attributes=AmpMulticast,
        inputs=_names,
        outputs=_output_names,
        shape=_each_shape,
        dtype=_common_dtype,
        forward=_forward,
        backward=_backward,
    )
)
