"""shape_array and size_array: an array's shape and number of elements, as int64.

Source: MXNet's `src/operator/tensor/elemwise_unary_op_basic.cc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.graph.shapes import unify
from runtime.ops.rules import Dtypes


def _dtype(p: Any, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    return inputs, [np.dtype(np.int64)]


def _rank(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    (data,) = inputs
    if data is None:
        return inputs, outputs
    return inputs, [unify(outputs[0], (len(data),), "output")]


def _one(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    return inputs, [unify(outputs[0], (1,), "output")]


def _shape_of(
    p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    outputs[0][...] = inputs[0].shape


def _size_of(
    p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    outputs[0][...] = inputs[0].size


register(Operator(name="shape_array", shape=_rank, dtype=_dtype, forward=_shape_of))
register(Operator(name="size_array", shape=_one, dtype=_dtype, forward=_size_of))
