"""CSVIter beyond what MXNet recorded."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import trio

from asyncmod import io
from asyncmod.io import table_reader, text_parts
from asyncmod.io.csv_iter import _NumberFile
from asyncmod.testing import check_iterator
from tests.timing import check_never_slow


def write(path: Path, rows: Any) -> Path:
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten rows of two numbers; the first is the row's own."""
    return write(tmp_path / "data.csv", [(i, i + 0.5) for i in range(10)])


async def first_columns(iterator: Any) -> list[list[float]]:
    return [batch.data[0][:, 0].tolist() async for batch in iterator]


@pytest.mark.parametrize("round_batch", [True, False])
async def test_contract(data: Path, tmp_path: Path, round_batch: bool) -> None:
    label = write(tmp_path / "label.csv", [(-i,) for i in range(10)])

    def make() -> io.CSVIter:
        return io.CSVIter(
            data_csv=data,
            data_shape=(2,),
            label_csv=label,
            batch_size=4,
            round_batch=round_batch,
        )

    await check_iterator(make, epochs=3)


async def test_contract_where_batches_are_made_in_threads(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> io.CSVIter:
        return io.CSVIter(data_csv=data, data_shape=(2,), batch_size=4)

    places = []
    rows_of = table_reader.TableReader._advance

    def advance(self: Any, table: Any) -> Any:
        places.append(threading.current_thread() is threading.main_thread())
        return rows_of(self, table)

    monkeypatch.setattr(table_reader.TableReader, "_advance", advance)
    await make().next()
    assert places == [True]
    monkeypatch.setattr(table_reader, "LARGE_COPY", 0)
    await check_iterator(make)
    assert not any(places[1:])


async def test_files_are_read_once(data: Path) -> None:
    iterator = io.CSVIter(data_csv=data, data_shape=(2,), batch_size=5)
    await iterator.next()
    await trio.Path(data).unlink()
    await iterator.next()
    await iterator.reset()
    assert await first_columns(iterator) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int32", 200000001), ("int64", 2**63 - 1), ("float32", 1), ("float64", 0.1)],
)
async def test_values_and_dtypes(tmp_path: Path, dtype: str, value: Any) -> None:
    path = write(tmp_path / "data.csv", [[value] * 64] * 1000)
    labels = write(tmp_path / "label.csv", [[0]] * 1000)
    iterator = io.CSVIter(
        data_csv=path,
        data_shape=(8, 8),
        label_csv=labels,
        batch_size=100,
        dtype=dtype,
    )
    assert iterator.provide_data[0].dtype == dtype
    count = 0
    async for batch in iterator:
        count += 1
        assert batch.data[0].dtype == batch.label[0].dtype == dtype
        np.testing.assert_array_equal(
            batch.data[0], np.full((100, 8, 8), value, dtype), strict=False
        )
    assert count == 10


async def test_without_round_batch_the_tail_repeats_the_batch_before(
    data: Path,
) -> None:
    iterator = io.CSVIter(
        data_csv=data, data_shape=(2,), batch_size=4, round_batch=False
    )
    for _ in range(2):
        expected = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 6, 7]]
        assert await first_columns(iterator) == expected
        await iterator.reset()


async def test_a_reset_amid_an_epoch_goes_to_the_first_row(data: Path) -> None:
    iterator = io.CSVIter(data_csv=data, data_shape=(2,), batch_size=4)
    await iterator.next()
    await iterator.reset()
    assert (await first_columns(iterator))[0] == [0, 1, 2, 3]
    await iterator.reset()
    assert (await first_columns(iterator))[0] == [2, 3, 4, 5]


@pytest.mark.parametrize("round_batch", [True, False])
async def test_fewer_rows_than_a_batch(data: Path, round_batch: bool) -> None:
    iterator = io.CSVIter(
        data_csv=data, data_shape=(2,), batch_size=12, round_batch=round_batch
    )
    if round_batch:
        with pytest.raises(io.TooFewRowsError, match="10 rows, and a batch of 12"):
            await iterator.next()
    else:
        batch = await iterator.next()
        assert batch.index.tolist() == [*range(10), 0, 1]
        assert batch.pad == 2


async def test_arguments_as_strings(data: Path) -> None:
    iterator = io.CSVIter(
        data_csv=str(data),
        data_shape="(2,)",
        batch_size="5",
        label_csv="NULL",
        label_shape="(1,)",
        round_batch="0",
    )
    assert [batch.pad async for batch in iterator] == [0, 0]
    assert iterator.provide_label == [("softmax_label", (5,))]


async def test_blank_lines_line_ends_and_signatures(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"\xef\xbb\xbf1, 2\r\n\r\n  \n3,nan\n\n5,-inf")
    iterator = io.CSVIter(data_csv=path, data_shape=2, batch_size=3)
    batch = await iterator.next()
    np.testing.assert_array_equal(batch.data[0], [[1, 2], [3, np.nan], [5, -np.inf]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n\n3\n", r"line 3: it has 1 numbers, and rows of shape \(2,\) need 2"),
        ("1,2,3\n", r"line 1: it has 3 numbers"),
        ("1,2\n3,four\n", r"line 2, column 2: 'four' is no number of dtype float32"),
        ("1,\n", r"line 1, column 2: '' is no number"),
        ("1,2\n1,2\x00\n", r"line 2, column 2: '2\\x00' is no number"),
        ("1,1_0\n", r"line 1, column 2: '1_0' is no number"),
        ("# 1,2\n", r"line 1, column 1: '# 1' is no number"),
        ("9" * 50 + "x,1\n", r"column 1: '9{40}\.\.\.' is no number"),
        ("\xff,1\n", r"column 1: .* is no number"),
        ("1,2\n0\r,0\n3,4\n", "line 2: it cannot be read as a row of numbers"),
        ("inf,2\n-INF,-1e39", "line 2, column 2: '-1e39' is beyond dtype float32"),
        ("", "has no rows"),
        ("\n\n", "has no rows"),
    ],
)
async def test_a_file_that_holds_something_else(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode())
    iterator = io.CSVIter(data_csv=path, data_shape=(2,), batch_size=1)
    for _ in range(2):  # asking again does not hide it
        with pytest.raises(io.DataFileError, match=f"^{path}.*{message}"):
            await iterator.next()


async def test_numbers_beyond_the_dtype(tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv", [[1], [3000000000]])
    iterator = io.CSVIter(data_csv=path, data_shape=1, batch_size=1, dtype="int32")
    with pytest.raises(io.DataFileError, match=r"line 2, column 1: '3000000000'"):
        await iterator.next()


async def test_lines_are_counted_over_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_parts, "BLOCK_BYTES", 7)
    monkeypatch.setattr(text_parts, "MOMENT", 0)
    path = write(tmp_path / "data.csv", [(i, i) for i in range(40)])
    with path.open("a") as file:
        file.write("\n1;2\n")
    iterator = io.CSVIter(data_csv=path, data_shape=2, batch_size=1)
    with pytest.raises(io.DataFileError, match="line 42: it has 1 numbers"):
        await iterator.next()


async def test_a_line_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_parts, "BLOCK_BYTES", 16)
    monkeypatch.setattr(text_parts, "LONGEST_LINE", 100)
    path = tmp_path / "data.csv"
    path.write_text("1,2\n" * 3 + "1" * 1000)
    iterator = io.CSVIter(data_csv=path, data_shape=2, batch_size=1)
    with pytest.raises(io.DataFileError, match="line 4: it is longer than 100 bytes"):
        await iterator.next()


async def test_labels_of_another_length(data: Path, tmp_path: Path) -> None:
    label = write(tmp_path / "label.csv", [[0]] * 9)
    iterator = io.CSVIter(data_csv=data, data_shape=2, label_csv=label, batch_size=2)
    with pytest.raises(io.DataFileError, match=r"label.csv has 9 rows, and .* has 10"):
        await iterator.next()


async def test_a_state_of_other_files(data: Path, tmp_path: Path) -> None:
    iterator = io.CSVIter(data_csv=data, data_shape=2, batch_size=2)
    await iterator.next()
    other = io.CSVIter(
        data_csv=write(tmp_path / "other.csv", [(1, 2)] * 4), data_shape=2, batch_size=2
    )
    other.set_state(iterator.get_state())
    with pytest.raises(io.DataFileError, match="saved over 10 rows, and these files"):
        await other.next()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data_csv": "nowhere.csv"}, FileNotFoundError, "`data_csv`: there is no"),
        ({"label_csv": "nowhere.csv"}, FileNotFoundError, "`label_csv`"),
        ({"data_shape": (0,)}, ValueError, r"`data_shape` must be .* not \(0,\)"),
        ({"data_shape": "(2"}, ValueError, r"`data_shape` must be .* not '\(2'"),
        ({"data_shape": ()}, ValueError, "`data_shape`"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be .* at least 1, not 0"),
        ({"batch_size": 2.5}, ValueError, "`batch_size`"),
        ({"round_batch": 2}, ValueError, "`round_batch` must be True or False, not 2"),
    ],
)
def test_arguments_that_cannot_be(
    data: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    fitting = {"data_csv": data, "data_shape": 2, "batch_size": 2}
    with pytest.raises(error, match=message):
        io.CSVIter(**{**fitting, **arguments})


async def test_reading_can_be_cancelled_and_goes_on(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call reads one block; cancelled at each, the file is read all the same."""
    monkeypatch.setattr(text_parts, "BLOCK_BYTES", 1)
    monkeypatch.setattr(text_parts, "MOMENT", 0)
    read = text_parts.TextParts._read_for_a_moment
    scopes = []

    def once(self: Any) -> None:
        read(self)
        trio.from_thread.run_sync(scopes[-1].cancel)

    monkeypatch.setattr(text_parts.TextParts, "_read_for_a_moment", once)
    iterator = io.CSVIter(data_csv=data, data_shape=(2,), batch_size=10)
    batch = None
    while batch is None:
        assert len(scopes) < 20
        with trio.CancelScope() as scope:
            scopes.append(scope)
            batch = await iterator.next()
    assert len(scopes) > 9
    assert batch.data[0][:, 0].tolist() == list(range(10))


async def test_a_large_file_leaves_the_loop_free(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(",".join(["0.123456"] * 50) + "\n")
    path.write_text(path.read_text() * 20000)

    async def run() -> dict[str, float]:
        longest = 0.0

        async def tick(task_status: Any) -> None:
            nonlocal longest
            task_status.started()
            while True:
                began = trio.current_time()
                await trio.sleep(0.001)
                longest = max(longest, trio.current_time() - began)

        iterator = io.CSVIter(data_csv=path, data_shape=50, batch_size=10000)
        async with trio.open_nursery() as nursery:
            await nursery.start(tick)
            assert [len(batch.data[0]) async for batch in iterator] == [10000, 10000]
            nursery.cancel_scope.cancel()
        return {"reading": longest} if longest > 0.02 * 10 else {}

    await check_never_slow(run)


@hypothesis.given(
    st.text("012,.-+e_#\"' \t\x00\r\x0b\x85\u0661\u00a0\u2028", max_size=8),
    st.sampled_from(["float32", "int32", "uint8"]),
)
def test_any_line_is_a_row_or_an_error_that_names_it(text: str, dtype: str) -> None:
    hypothesis.assume(text.strip())
    file = _NumberFile(Path("some.csv"), (2,), np.dtype(dtype))
    fault = None
    try:
        rows = file._parse([(7, "1,1"), (8, text)])
    except io.DataFileError as error:
        fault = str(error)
    if fault is None:
        assert rows.shape == (2, 2)
    else:
        assert fault.startswith("some.csv, line 8")
