"""_histogram: how many elements lie in each of several intervals. It has no gradient.

Source: MXNet's `src/operator/tensor/histogram.cc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.errors import OperatorError, ShapeError
from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.graph.shapes import is_known, unify
from runtime.ops.rules import Dtypes


@dataclass(frozen=True)
class Histogram:
    """Attributes.

    Attributes:
        bin_cnt: How many intervals of one width; None if their ends are the input
            `bins`.
        range: Where the first of so many begins, and the last one ends, which belongs
            to it. What lies outside is not counted.
    """

    bin_cnt: int | None = None
    range: tuple[float, ...] | None = None


def _names(p: Histogram) -> tuple[str, ...]:
    return ("data", "bins") if p.bin_cnt is None else ("data",)


def _shape(p: Histogram, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    if p.bin_cnt is None:
        bins = inputs[1]
        if not is_known(bins):
            return inputs, outputs
        if len(bins) != 1 or bins[0] < 2:
            raise ShapeError(
                f"`bins` must be two numbers or more, but their shape is {bins}"
            )
        count = bins[0] - 1
    else:
        count = p.bin_cnt
        if count < 1 or p.range is None or len(p.range) != 2:
            raise OperatorError(
                f"`bin_cnt` (={count}) must be positive, and `range` (={p.range}) give "
                "the two ends"
            )
    counts, ends = outputs
    return inputs, [
        unify(counts, (count,), "output"),
        unify(ends, (count + 1,), "output"),
    ]


def _dtype(p: Histogram, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    known = [dtype for dtype in (*inputs, outputs[1]) if dtype is not None]
    found = known[0] if known else None
    return [found] * len(inputs), [np.dtype(np.int64), found]


def _forward(
    p: Histogram, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    if p.bin_cnt is None:
        data, bins = inputs
        outputs[0][...], outputs[1][...] = np.histogram(data, bins)
    else:
        assert p.range is not None  # by the shape rule
        ends = p.range[0], p.range[1]
        outputs[0][...], outputs[1][...] = np.histogram(inputs[0], p.bin_cnt, ends)


register(
    Operator(
        name="_histogram",
        attributes=Histogram,
        inputs=_names,
        outputs=("output0", "output1"),
        shape=_shape,
        dtype=_dtype,
        forward=_forward,
    )
)
