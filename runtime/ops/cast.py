"""Cast: the same numbers in another dtype.

Source: MXNet's `src/operator/tensor/elemwise_unary_op.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runtime.graph.registry import Array, Mode, Operator, register
from runtime.ops.rules import Dtypes, one_shape


@dataclass(frozen=True)
class Cast:
    """Attributes; floating-point numbers are truncated to integers."""

    dtype: Literal[
        "bool", "float16", "float32", "float64", "uint8", "int8", "int32", "int64"
    ]


def _dtype(p: Cast, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    return inputs, [np.dtype(p.dtype)]


def _forward(
    p: Cast, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        outputs[0][...] = inputs[0]


def _backward(
    p: Cast,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        grads_in[0][...] = grads_out[0]


register(
    Operator(
        name="Cast",
        aliases=("cast",),
        attributes=Cast,
        shape=one_shape,
        dtype=_dtype,
        forward=_forward,
        backward=_backward,
    )
)
