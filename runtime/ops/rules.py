"""Rules that many operators share: shapes, dtypes, and the precision to sum in."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Shapes
from runtime.graph.shapes import unify

Dtypes = list[Any]


def one_shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    """All inputs and outputs have one shape."""
    shape = None
    for other in (*inputs, *outputs):
        shape = unify(shape, other)
    return [shape] * len(inputs), [shape] * len(outputs)


def axis_in(axis: int, rank: int, name: str = "axis") -> int:
    """An axis counted from the front.

    Raises:
        ShapeError: if there is no such axis; `name` is the attribute's.
    """
    if not -rank <= axis < rank:
        raise ShapeError(f"`{name}` (={axis}) names no axis of {rank} dimensions")
    return axis % rank


def free_label(p: Any, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    """Data and output share a dtype; labels or indexes follow only if not given."""
    data = inputs[0] if inputs[0] is not None else outputs[0]
    labels = [data if dtype is None else dtype for dtype in inputs[1:]]
    return [data, *labels], [data] * len(outputs)


def accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to sum in: float16 in float32, integers in a float that holds them."""
    return np.result_type(dtype, np.float32)
