"""Convolution against plain loops, and in chunks."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from runtime.graph.registry import Array
from runtime.ops import convolution
from tests.runtime.ops.interpreter import apply, backward

GENERATOR = np.random.default_rng(4)
DATA = GENERATOR.normal(size=(3, 4, 6, 5))
WEIGHT = GENERATOR.normal(size=(6, 2, 3, 2))
BIAS = GENERATOR.normal(size=6)
ATTRIBUTES: Any = {
    "kernel": "(3, 2)",
    "num_filter": "6",
    "num_group": "2",
    "stride": "(2, 1)",
    "dilate": "(1, 2)",
    "pad": "(2, 1)",
}


def by_loops() -> Array:
    padded = np.pad(DATA, ((0, 0), (0, 0), (2, 2), (1, 1)))
    output = np.zeros((3, 6, 4, 5))
    for n, f, y, x in np.ndindex(output.shape):
        total = BIAS[f]
        for c, i, j in product(range(2), range(3), range(2)):
            pixel = padded[n, c + 2 * (f // 3), 2 * y + i, x + 2 * j]
            total += WEIGHT[f, c, i, j] * pixel
        output[n, f, y, x] = total
    return output


def test_by_loops() -> None:
    (output,) = apply("Convolution", DATA, WEIGHT, BIAS, **ATTRIBUTES).outputs
    np.testing.assert_allclose(output, by_loops(), rtol=1e-12)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for elements in (1, 1 << 20):
        monkeypatch.setattr(convolution, "_CHUNK_ELEMENTS", elements)
        done = apply("Convolution", DATA, WEIGHT, BIAS, **ATTRIBUTES)
        head = np.ones_like(done.outputs[0])
        grads = backward(done, [head], {"x0", "x1", "x2"})
        results.append([done.outputs[0], *grads.values()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
