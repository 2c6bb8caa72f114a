"""The journal saves what a section changes, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.devices.process.journal import Bytes, Journal
from runtime.devices.process.journal_layout import Layout
from runtime.graph.plan import (
    Address,
    DefinitionRow,
    NativeRow,
    Plan,
    RowSparseTensor,
    Tensor,
    spans,
)

ROWS, COLUMNS = 10_000, 8
TABLE = Tensor(Address("parameter", 64), (ROWS, COLUMNS), "float32")
NUMBERS = Tensor(Address("beside", 0), (1 + ROWS,), "int64")
VALUES = Tensor(Address("beside", 100_032), (ROWS, COLUMNS), "float32")
DENSE = Tensor(Address("parameter", 0), (4,), "float32")
DENSE_RESULT = Tensor(Address("beside", 420_096), (4,), "float32")


def row(
    operator: str, source: Tensor | RowSparseTensor, target: Tensor | RowSparseTensor
) -> DefinitionRow:
    return DefinitionRow(operator, False, "x", 0, {}, True, (source,), (target,))


# A copy of what was computed beside, and a kernel that works in place.
COPY = row("rows=", RowSparseTensor(NUMBERS, VALUES), TABLE)
KERNEL = NativeRow(
    *("lazy_sgd", "x", {}, (), spans((TABLE,))),
    tables=(RowSparseTensor(NUMBERS, TABLE),),
)


def plan(changes: DefinitionRow | NativeRow) -> Plan:
    return Plan(
        segments={"parameter": 320_064, "beside": 420_160},
        tensors={},
        sections={"update": (changes, row("=", DENSE_RESULT, DENSE))},
    )


UNTOUCHED = 0xAA


@pytest.mark.parametrize("changes", [COPY, KERNEL], ids=["copy", "kernel"])
def test_of_a_table_the_rows_that_change_are_saved_and_put_back(
    changes: DefinitionRow | NativeRow,
) -> None:
    lazy = plan(changes)
    generator = np.random.default_rng(0)
    segments: dict[str, Bytes] = {
        name: generator.integers(0, 256, nbytes, np.uint8)
        for name, nbytes in lazy.segments.items()
    }
    chosen = [3, 77, ROWS - 1]
    segments["beside"][: 8 * (1 + ROWS)].view(np.int64)[:4] = [len(chosen), *chosen]
    layout = Layout.of(lazy, frozenset())
    data = np.full(layout.nbytes, UNTOUCHED, np.uint8)
    journal = Journal(layout, data, lambda name, slot: segments[name])
    before = segments["parameter"].copy()

    journal.begin("update", 0, 5)
    row_bytes = TABLE.nbytes // ROWS
    most = 16 + DENSE.nbytes + 8 * (1 + len(chosen)) + len(chosen) * row_bytes
    assert np.count_nonzero(data != UNTOUCHED) <= most < 200

    table = segments["parameter"][64:].reshape(ROWS, row_bytes)
    table[chosen] ^= 0xFF
    segments["parameter"][:16] ^= 0xFF
    segments["beside"][:] = 0  # by now they may be those of another update
    assert not journal.recover("update", 0, 5)
    assert np.array_equal(segments["parameter"], before)

    table[chosen] ^= 0xFF
    journal.end("update", 5)
    assert journal.recover("update", 0, 5)
    assert not np.array_equal(segments["parameter"], before)


def test_of_a_sum_of_rows_those_are_saved_and_put_back_that_it_has() -> None:
    sums = RowSparseTensor(NUMBERS, VALUES)
    adds = row("+=", sums, sums)
    summing = Plan({"beside": 420_160}, {}, {"add": (adds,)}, accumulated=(sums,))
    beside = np.random.default_rng(0).integers(0, 256, 420_160, np.uint8)
    numbers = beside[: 8 * (1 + ROWS)].view(np.int64)
    values = beside[100_032:420_032].view(np.float32).reshape(ROWS, COLUMNS)
    layout = Layout.of(summing, frozenset())
    assert layout.entries.keys() == {"add", "backward", "step"}
    for section in layout.entries:
        data = np.full(layout.nbytes, UNTOUCHED, np.uint8)
        journal = Journal(layout, data, lambda name, slot: beside)
        numbers[:3] = [2, 5, 9]
        before = values[:2].copy()
        journal.begin(section, 0, 1)
        assert np.count_nonzero(data != UNTOUCHED) <= 16 + 8 * 3 + before.nbytes

        numbers[:5] = [4, 5, 7, 9, 11]
        values[:4] = 0
        journal.undo(section, 0, 1)
        assert numbers[:3].tolist() == [2, 5, 9]
        assert np.array_equal(values[:2], before)


def test_memory_for_copies_of_rows_is_only_promised() -> None:
    layout = Layout.of(plan(COPY), frozenset())
    most = [end - begin for begin, end in layout.by_rows]
    assert most == [NUMBERS.nbytes, TABLE.nbytes]
    assert all(
        begin % 64 == 0 and end <= layout.nbytes for begin, end in layout.by_rows
    )
