"""LibSVMIter: sparse batches from lines of `label index:value index:value ...`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trio

from asyncmod.io.batch import DataBatch, DataDesc
from asyncmod.io.batch_cursor import BatchCursor
from asyncmod.io.file_arguments import (
    FileArgumentError,
    FilePath,
    Shape,
    as_file,
    as_flag,
    as_integer,
    as_optional_file,
    as_part,
    as_shape,
    part_of,
)
from asyncmod.io.iterator import DataIter, State
from asyncmod.io.table_reader import DataFileError, Table, TableReader, rows_of
from asyncmod.io.text_parts import Line, TextParts, shortened
from asyncmod.scipy_sparse import need_scipy, scipy_sparse

Array = np.ndarray[Any, np.dtype[Any]]


class LibSVMIter(DataIter):
    """Sparse batches from files of `label index:value index:value ...`, one row each.

    Indexes count from zero. The data of a batch is a `scipy.sparse.csr_matrix`
    (install `asyncmod[sparse]`), float32; the labels are dense. The files are read
    once, beside the event loop, when the first batch is asked for, and kept in memory.
    The last batch is filled with rows from the start, and the next epoch begins after
    them. Arguments may be strings, as in MXNet.

    Args:
        data_libsvm: File of the data, and of the labels unless they have their own.
        data_shape: (columns,).
        batch_size: Rows per batch.
        label_libsvm: File of labels; its `index:value` pairs make a row of
            `label_shape`, and its own first numbers are passed over.
        label_shape: (columns,) of a label row; with (1,) a batch's is (batch_size,).
        num_parts: Into how many parts the rows are cut, for several workers.
        part_index: Which part is read, from 0. Parts differ by one row at most (MXNet
            cuts by bytes).
        round_batch: Must be true; sparse batches are always filled.
        data_name: Name of the data.
        label_name: Name of the labels.
        prefetch_buffer: Accepted for MXNet's sake; see PrefetchingIter.
        ctx: Accepted for MXNet's sake.

    Raises:
        FileArgumentError: an argument has a value that cannot be.
        FileNotFoundError: a file is not there.
        MissingScipyError: SciPy is not installed.
    """

    def __init__(
        self,
        *,
        data_libsvm: FilePath,
        data_shape: Shape | int | str,
        batch_size: int | str,
        label_libsvm: FilePath | None = None,
        label_shape: Shape | int | str = (1,),
        num_parts: int | str = 1,
        part_index: int | str = 0,
        round_batch: bool | int | str = True,
        data_name: str = "data",
        label_name: str = "softmax_label",
        prefetch_buffer: int = 4,
        ctx: Any = "gpu",
    ) -> None:
        super().__init__(as_integer("batch_size", batch_size, 1))
        need_scipy("LibSVMIter hands out")
        if not as_flag("round_batch", round_batch):
            raise FileArgumentError(
                "LibSVMIter needs round_batch=True: a sparse batch cannot be left "
                "partly filled"
            )
        width = _columns("data_shape", data_shape)
        label_width = _columns("label_shape", label_shape)
        label_file = as_optional_file("label_libsvm", label_libsvm)
        if label_file is None and label_width != 1:
            raise FileArgumentError(
                f"label_shape=({label_width},) needs a file of labels, `label_libsvm`; "
                "a line of data has one label"
            )
        self._part = as_part(num_parts, part_index)
        self._data = _SparseFile(as_file("data_libsvm", data_libsvm), width)
        self._label: _SparseFile | None = None
        if label_file is not None:
            self._label = _SparseFile(label_file, label_width)
        data_row, label_row = (width,), () if label_width == 1 else (label_width,)
        batch = (self.batch_size,)
        self.provide_data = [DataDesc(data_name, batch + data_row)]
        self.provide_label = [DataDesc(label_name, batch + label_row)]
        self._label_row = label_row
        self._reader = TableReader(
            self._load,
            BatchCursor(self.batch_size, "borrow"),
        )

    async def next(self) -> DataBatch:
        """The next batch; StopAsyncIteration at the end. Cancelling loses nothing.

        Raises:
            DataFileError: a file holds something else; the message says where.
            TooFewRowsError: fewer rows than one batch.
        """
        return await self._reader.next()

    async def reset(self) -> None:
        """Begin the next epoch."""
        await self._reader.reset()

    def get_state(self) -> State:
        """The position, as plain data."""
        return self._reader.get_state()

    def set_state(self, state: State) -> None:
        """Continue from `state`."""
        self._reader.set_state(state)

    async def _load(self) -> Table:
        await self._data.parts.read()
        if self._label is not None:
            await self._label.parts.read()
        return await trio.to_thread.run_sync(self._make_table)

    def _make_table(self) -> Table:
        data = self._data.join()
        count = len(data.labels)
        matrix = data.matrix()
        dense = data.labels
        if self._label is not None:
            labels = self._label.join()
            if len(labels.labels) != count:
                raise DataFileError(
                    f"{self._label.path} has {len(labels.labels)} rows, and "
                    f"{self._data.path} has {count}: each row of data needs one label "
                    "row"
                )
            dense = labels.matrix().toarray().reshape(count, *self._label_row)
        rows = part_of(count, *self._part)
        if rows.start == rows.stop:
            raise DataFileError(
                f"{self._data.path} has {count} rows, which leaves none for part "
                f"{self._part[1]} of {self._part[0]}"
            )
        part = matrix[rows]
        self._data.parts.forget()
        if self._label is not None:
            self._label.parts.forget()
        return Table(
            np.arange(count)[rows],
            lambda where: part[where],
            rows_of(dense[rows]),
            (16 * len(data.values) + dense.nbytes) // count,
        )


@dataclass(frozen=True)
class _SparseRows:
    """Rows of a file, as CSR: float32 values, int64 columns and row lengths."""

    labels: Array
    lengths: Array
    columns: Array
    values: Array
    width: int

    def matrix(self) -> Any:
        """The rows as a `scipy.sparse.csr_matrix`."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        shape = (len(self.lengths), self.width)
        matrix = scipy_sparse("LibSVMIter hands out").csr_matrix
        return matrix((self.values, self.columns, starts), shape)


class _SparseFile:
    """A file of sparse rows with `width` columns."""

    def __init__(self, path: Path, width: int) -> None:
        self.path = path
        self._width = width
        self.parts = TextParts(path, self._parse)

    def join(self) -> _SparseRows:
        """The parts that were read, as one."""
        parts = self.parts.found
        fields = ("labels", "lengths", "columns", "values")
        labels, lengths, columns, values = (
            np.concatenate([getattr(part, field) for part in parts]) for field in fields
        )
        return _SparseRows(labels, lengths, columns, values, self._width)

    def _parse(self, lines: Sequence[Line]) -> _SparseRows:
        try:
            return self._rows(lines)
        except (ValueError, ArithmeticError):
            for number, text in lines:
                fault = self._fault(text)
                if fault is not None:
                    where = f"{self.path}, line {number}"
                    raise DataFileError(f"{where}: {fault}") from None
            raise

    def _rows(self, lines: Sequence[Line]) -> _SparseRows:
        """The lines' rows; an exception if one is not as it must be."""
        labels: list[float] = []
        lengths: list[int] = []
        columns: list[int] = []
        values: list[float] = []
        for _, line in lines:
            text = line.partition("#")[0]
            label, *pairs = text.split() or [""]
            labels.append(float(label))
            lengths.append(len(pairs))
            for pair in pairs:
                column, _, value = pair.partition(":")
                columns.append(int(column))
                values.append(float(value))
            if len(set(columns[-len(pairs) :])) < len(pairs):
                raise ValueError(line)
            if "_" in text or not text.isascii():  # Python would read 1_000
                raise ValueError(line)
        found = np.array(columns, np.int64)
        if found.size and (found.min() < 0 or found.max() >= self._width):
            raise ValueError(found)
        return _SparseRows(
            _single(labels),
            np.array(lengths, np.int64),
            found,
            _single(values),
            self._width,
        )

    def _fault(self, line: str) -> str | None:
        """What is wrong with a line, if anything is."""
        text = line.partition("#")[0]
        label, *pairs = text.split() or [""]
        if not _is_number(label):
            return f"{shortened(label)} is no number of dtype float32"
        seen = set()
        for pair in pairs:
            column, _, value = pair.partition(":")
            if not (column.isdecimal() and column.isascii()):
                return (
                    f"{shortened(pair)} is not of the form index:value with an index "
                    "from 0"
                )
            if len(column) > 18 or int(column) >= self._width:
                return (
                    f"the index {shortened(column)} is beyond the {self._width} "
                    f"columns of shape ({self._width},); indexes count from 0"
                )
            if not _is_number(value):
                return f"{shortened(value)} is no number of dtype float32"
            if int(column) in seen:
                return f"the index {column} occurs twice"
            seen.add(int(column))
        return None if text.isascii() else "it has characters beyond ASCII"


def _single(numbers: list[float]) -> Array:
    """As float32; FloatingPointError for a number that is beyond it."""
    with np.errstate(over="raise"):
        return np.array(numbers, np.float64).astype(np.float32)


def _is_number(text: str) -> bool:
    try:
        _single([float(text)])
    except (ValueError, ArithmeticError):
        return False
    return text.isascii() and "_" not in text


def _columns(name: str, shape: Any) -> int:
    sizes = as_shape(name, shape)
    if len(sizes) != 1:
        raise FileArgumentError(f"`{name}` must be (columns,), not {sizes}")
    return sizes[0]
