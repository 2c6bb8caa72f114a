"""LibSVMIter beyond what MXNet recorded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse
import trio

from asyncmod import io
from asyncmod.io.libsvm_iter import _SparseFile
from asyncmod.testing import check_iterator

TEXT = "1.0 0:0.5 2:1.2\n-2.0\n-3.0 0:0.6 1:2.4 2:1.2\n4 2:-1.2\n"
ROWS = [[0.5, 0, 1.2], [0, 0, 0], [0.6, 2.4, 1.2], [0, 0, -1.2]]
LABEL_TEXT = "1.0\n-2.0 0:0.125\n-3.0 2:1.2\n4 1:1.0 2:-1.2\n"
LABEL_ROWS = [[0, 0, 0], [0.125, 0, 0], [0, 0, 1.2], [0, 1.0, -1.2]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.t"
    path.write_text(TEXT)
    return path


@pytest.fixture
def label(tmp_path: Path) -> Path:
    path = tmp_path / "label.t"
    path.write_text(LABEL_TEXT)
    return path


async def test_contract(data: Path, label: Path) -> None:
    await check_iterator(
        lambda: io.LibSVMIter(
            data_libsvm=data,
            data_shape=(3,),
            label_libsvm=label,
            label_shape=(3,),
            batch_size=3,
        ),
        epochs=3,
    )


async def test_contract_prefetched_copies(data: Path) -> None:
    await check_iterator(
        lambda: io.PrefetchingIter(
            io.LibSVMIter(data_libsvm=data, data_shape=3, batch_size=3), copy=True
        )
    )


async def test_data_and_labels_wrap_around(data: Path, label: Path) -> None:
    iterator = io.LibSVMIter(
        data_libsvm=data,
        data_shape=(3,),
        label_libsvm=label,
        label_shape=(3,),
        batch_size=3,
    )
    batches = [batch async for batch in iterator]
    for batch, rows in zip(batches, [[0, 1, 2], [3, 0, 1]], strict=True):
        assert scipy.sparse.issparse(batch.data[0])
        assert batch.data[0].format == "csr"
        assert batch.data[0].dtype == np.float32
        expected = np.array(ROWS, np.float32)[rows]
        np.testing.assert_array_equal(batch.data[0].toarray(), expected)
        expected = np.array(LABEL_ROWS, np.float32)[rows]
        np.testing.assert_array_equal(batch.label[0], expected)
        assert batch.index.tolist() == rows
    assert [batch.pad for batch in batches] == [0, 2]


async def test_batches_belong_to_the_caller(data: Path) -> None:
    iterator = io.LibSVMIter(data_libsvm=data, data_shape=3, batch_size=2)
    batch = await iterator.next()
    batch.data[0].data[:] = 9
    await iterator.next()
    await iterator.reset()
    batch = await iterator.next()
    np.testing.assert_array_equal(batch.data[0].toarray(), np.float32(ROWS[:2]))


async def test_parts_take_every_row_once(tmp_path: Path) -> None:
    path = tmp_path / "data.t"
    path.write_text("".join(f"{i} 0:1\n" for i in range(10)))
    found = []
    for part in range(3):
        iterator = io.LibSVMIter(
            data_libsvm=path,
            data_shape=1,
            batch_size=1,
            num_parts=3,
            part_index=part,
        )
        found.append([int(batch.label[0][0]) async for batch in iterator])
    assert found == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]


async def test_comments_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "data.t"
    path.write_text("\n1 0:2 # a note: 5:5\r\n\n2\n")
    iterator = io.LibSVMIter(data_libsvm=path, data_shape=1, batch_size=2)
    batch = await iterator.next()
    assert batch.label[0].tolist() == [1, 2]
    assert batch.data[0].toarray().tolist() == [[2], [0]]


async def test_numbers_of_every_form(tmp_path: Path) -> None:
    path = tmp_path / "data.t"
    path.write_text("+1e+1 0:+1.5e-1 2:-Inf # \u00e9_\n-.5 1:nan 0:1.\n")
    iterator = io.LibSVMIter(data_libsvm=path, data_shape=3, batch_size=2)
    batch = await iterator.next()
    assert batch.label[0].tolist() == [10, -0.5]
    expected = np.float32([[0.15, 0, -np.inf], [1, np.nan, 0]])
    np.testing.assert_array_equal(batch.data[0].toarray(), expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 -2:0.5", "'-2:0.5' is not of the form index:value with an index from 0"),
        ("0 3:0.5", r"the index '3' is beyond the 3 columns of shape \(3,\)"),
        ("0 " + "9" * 400 + ":1", r"the index '9{40}\.\.\.' is beyond"),
        ("0\u00a01:1", "it has characters beyond ASCII"),
        ("0 " + "9" * 5000 + ":1", r"the index '9{40}\.\.\.' is beyond"),
        ("0 1", "'' is no number"),
        ("0 1:", "'' is no number"),
        ("0 1:2:3", "'2:3' is no number"),
        ("0 1:1_0", "'1_0' is no number"),
        ("0 \u0661:1", ".* is not of the form index:value"),
        ("0 1:-1e39", "'-1e39' is no number of dtype float32"),
        ("1e39", "'1e39' is no number of dtype float32"),
        ("zero 1:1", "'zero' is no number"),
        ("0 qid:3 1:1", "'qid:3' is not of the form"),
        ("0 1:1 1:2", "the index 1 occurs twice"),
        ("# nothing else", "'' is no number"),
    ],
)
async def test_a_file_that_holds_something_else(
    data: Path, line: str, message: str
) -> None:
    await trio.Path(data).write_text(f"{TEXT}\n{line}\n")
    iterator = io.LibSVMIter(data_libsvm=data, data_shape=(3,), batch_size=2)
    for _ in range(2):
        with pytest.raises(io.DataFileError, match=f"^{data}, line 6: {message}"):
            await iterator.next()


async def test_an_empty_file(data: Path) -> None:
    await trio.Path(data).write_text("")
    iterator = io.LibSVMIter(data_libsvm=data, data_shape=(3,), batch_size=2)
    with pytest.raises(io.DataFileError, match="has no rows"):
        await iterator.next()


async def test_more_parts_than_rows(data: Path) -> None:
    iterator = io.LibSVMIter(
        data_libsvm=data, data_shape=3, batch_size=1, num_parts=5, part_index=0
    )
    with pytest.raises(io.DataFileError, match="4 rows, which leaves none for part 0"):
        await iterator.next()


async def test_labels_of_another_length(data: Path, label: Path) -> None:
    await trio.Path(label).write_text("0 0:1\n")
    iterator = io.LibSVMIter(
        data_libsvm=data,
        data_shape=3,
        label_libsvm=label,
        label_shape=3,
        batch_size=1,
    )
    with pytest.raises(io.DataFileError, match=r"label.t has 1 rows, and .* has 4"):
        await iterator.next()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"round_batch": 0}, "needs round_batch=True"),
        ({"data_shape": (3, 2)}, r"`data_shape` must be \(columns,\), not \(3, 2\)"),
        ({"label_shape": (4,)}, r"label_shape=\(4,\) needs a file of labels"),
        ({"num_parts": 2, "part_index": 2}, "`part_index` must be less than num_parts"),
        ({"part_index": -1}, "`part_index` must be an integer of at least 0"),
    ],
)
def test_arguments_that_cannot_be(
    data: Path, arguments: dict[str, Any], message: str
) -> None:
    fitting = {"data_libsvm": data, "data_shape": 3, "batch_size": 2}
    with pytest.raises(io.FileArgumentError, match=message):
        io.LibSVMIter(**{**fitting, **arguments})


def test_scipy_is_asked_for_by_name(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'asyncmod\[sparse\]'"):
        io.LibSVMIter(data_libsvm=data, data_shape=3, batch_size=1)


@hypothesis.given(st.text("0123:.-+e_# \t\x00\u0661\u00a0", max_size=12))
def test_any_line_is_a_row_or_an_error_that_names_it(text: str) -> None:
    hypothesis.assume(text.strip())
    file = _SparseFile(Path("some.t"), 3)
    fault = None
    try:
        rows = file._parse([(7, "0 1:1"), (8, text)])
    except io.DataFileError as error:
        fault = str(error)
    if fault is None:
        assert rows.matrix().shape == (2, 3)
    else:
        assert fault.startswith("some.t, line 8: ")
