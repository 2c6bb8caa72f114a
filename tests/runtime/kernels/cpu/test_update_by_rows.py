"""Lazy kernels against the definition on the rows that some gradient has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.kernels.cpu.table import LAZY_RULES
from runtime.ops.update import get_rule
from runtime.row_sparse import RowSparseNDArray
from tests.runtime.kernels.cpu.conftest import Kernels, Memory
from tests.runtime.kernels.cpu.test_update import SCALARS

HEIGHT = 60
COMMON = (0.1, 0.03, 1 / 3, 0.4)

# What rows the gradients of some devices have.
CASES: dict[str, list[Sequence[int]]] = {
    "one": [(0, 3, 59)],
    "every row": [range(HEIGHT)],
    "none": [()],
    "alike": [(1, 2, 40), (1, 2, 40)],
    "apart": [(5, 6), (0, 59), (30,)],
    "the first has none": [(), (7, 8, 9)],
    "mixed": [range(0, 60, 3), range(0, 60, 2), (1, 30, 31)],
}


def gradient(rows: Sequence[int], columns: int, seed: int) -> RowSparseNDArray:
    values = np.random.default_rng(seed).normal(size=(len(rows), columns))
    indices = np.array(rows, np.int64)
    return RowSparseNDArray(indices, values.astype(np.float32), (HEIGHT, columns))


def table(memory: Memory, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Of their addresses."""
    return memory.array([array.ctypes.data for array in arrays], np.int64)


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("columns", [1, 16, 37])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", LAZY_RULES)
def test_some_rows_are_updated(
    kernels: Kernels, memory: Memory, name: str, case: str, columns: int, parts: int
) -> None:
    rule = get_rule(name.removesuffix("_plain"))
    gradients = [gradient(r, columns, seed) for seed, r in enumerate(CASES[case])]
    random = np.random.default_rng(9)
    kept: list[Any] = [
        memory.array(np.abs(random.normal(size=(HEIGHT, columns))) + 5 * (k > 0))
        for k in range(1 + (0 if name.endswith("_plain") else len(rule.states)))
    ]
    hyper = memory.array((*COMMON, *SCALARS[rule.name]), np.float64)

    total = sum(gradients[1:], gradients[0])
    expected = [array.copy() for array in kept]
    rows = total.indices
    weight, states = rule.apply(
        kept[0][rows], total.values, [state[rows] for state in kept[1:]], hyper
    )
    for array, new in zip(expected, (weight, *states), strict=True):
        array[rows] = new

    fields: dict[str, Any] = {
        "gradient_rows": table(
            memory,
            [memory.array([len(g.indices), *g.indices], np.int64) for g in gradients],
        ),
        "devices": len(gradients),
        "scratch": memory.array(np.zeros(2 * len(gradients) + len(kept)), np.int64),
    }
    values = table(memory, [memory.array(g.values) for g in gradients])
    places = table(memory, kept)
    seen: list[int] = []
    for part in range(parts):
        numbers = memory.array(np.full(1 + HEIGHT, -1), np.int64)
        kernels("share_rows", part=part, parts=parts, numbers=numbers, **fields)
        seen += numbers[1 : 1 + int(numbers[0])].tolist()  # type: ignore[call-overload]
        kernels(
            f"lazy_{name}",
            tensors=places,
            kept=len(kept),
            gradient_values=values,
            columns=columns,
            hyper=hyper,
            numbers=numbers,
            **fields,
        )
    assert seen == rows.tolist()
    rtol = 2e-6 if name == "groupadagrad" else 0
    for array, wanted in zip(kept, expected, strict=True):
        np.testing.assert_allclose(array, wanted, rtol=rtol)


@pytest.mark.parametrize("parts", [2, 3])
def test_devices_get_shares_of_like_size(
    kernels: Kernels, memory: Memory, parts: int
) -> None:
    rows = memory.array([48, *range(6, 54)], np.int64)
    for part in range(parts):
        numbers = memory.array(np.zeros(1 + HEIGHT), np.int64)
        kernels(
            "share_rows",
            gradient_rows=table(memory, [rows]),
            devices=1,
            part=part,
            parts=parts,
            numbers=numbers,
            scratch=memory.array([0], np.int64),
        )
        assert numbers[0] == 48 // parts
