"""CSVIter: batches from comma-separated numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trio
from numpy.typing import DTypeLike

from asyncmod.io.batch import DataBatch, DataDesc
from asyncmod.io.batch_cursor import BatchCursor, Tail
from asyncmod.io.file_arguments import (
    FilePath,
    Shape,
    as_file,
    as_flag,
    as_integer,
    as_optional_file,
    as_shape,
)
from asyncmod.io.iterator import DataIter, State
from asyncmod.io.table_reader import DataFileError, Table, TableReader, rows_of
from asyncmod.io.text_parts import Line, TextParts, shortened

Array = np.ndarray[Any, np.dtype[Any]]


class CSVIter(DataIter):
    """Batches from a file with one row of comma-separated numbers per line.

    The files are read once, beside the event loop, when the first batch is asked
    for, and kept in memory as `dtype`. Arguments may be strings, as in MXNet.

    Args:
        data_csv: File of the data.
        data_shape: Shape of one row's data; a line has as many numbers.
        batch_size: Rows per batch.
        label_csv: File of the labels; without one they are zeros.
        label_shape: Shape of one row's label; with (1,) a batch's is (batch_size,).
        round_batch: Fill the last batch with rows from the start, and begin the next
            epoch after them. Otherwise its tail repeats rows of the batch before, and
            every epoch begins with the first row. `batch.pad` counts the rows that
            were filled in, either way.
        dtype: Of data and labels: float32 unless given. Integers are read exactly.
        data_name: Name of the data.
        label_name: Name of the labels.
        prefetch_buffer: Accepted for MXNet's sake; see PrefetchingIter.
        ctx: Accepted for MXNet's sake.

    Raises:
        FileArgumentError: an argument has a value that cannot be.
        FileNotFoundError: a file is not there.
    """

    def __init__(
        self,
        *,
        data_csv: FilePath,
        data_shape: Shape | int | str,
        batch_size: int | str,
        label_csv: FilePath | None = None,
        label_shape: Shape | int | str = (1,),
        round_batch: bool | int | str = True,
        dtype: DTypeLike | None = None,
        data_name: str = "data",
        label_name: str = "softmax_label",
        prefetch_buffer: int = 4,
        ctx: Any = "gpu",
    ) -> None:
        super().__init__(as_integer("batch_size", batch_size, 1))
        chosen = np.dtype(np.float32 if dtype is None else dtype)
        shape = as_shape("data_shape", data_shape)
        label = as_shape("label_shape", label_shape)
        self._data = _NumberFile(as_file("data_csv", data_csv), shape, chosen)
        label_file = as_optional_file("label_csv", label_csv)
        self._label: _NumberFile | None = None
        if label_file is not None:
            self._label = _NumberFile(label_file, label, chosen)
        self._label_row = () if label == (1,) else label
        batch = (self.batch_size,)
        self.provide_data = [DataDesc(data_name, batch + shape, chosen)]
        self.provide_label = [DataDesc(label_name, batch + self._label_row, chosen)]
        tail: Tail = "borrow" if as_flag("round_batch", round_batch) else "repeat"
        self._reader = TableReader(self._load, BatchCursor(self.batch_size, tail))

    async def next(self) -> DataBatch:
        """The next batch; StopAsyncIteration at the end. Cancelling loses nothing.

        Raises:
            DataFileError: a file holds something else; the message says where.
            TooFewRowsError: with `round_batch`, fewer rows than one batch.
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
        count = len(data)
        labels = np.zeros((count, *self._label_row), data.dtype)
        if self._label is not None:
            labels = self._label.join()
            if len(labels) != count:
                raise DataFileError(
                    f"{self._label.path} has {len(labels)} rows, and {self._data.path} "
                    f"has {count}: each row of data needs one label row"
                )
            labels = labels.reshape(count, *self._label_row)
            self._label.parts.forget()
        self._data.parts.forget()
        row_bytes = (data.nbytes + labels.nbytes) // count
        return Table(np.arange(count), rows_of(data), rows_of(labels), row_bytes)


class _NumberFile:
    """A file of numbers, as rows of one shape."""

    def __init__(self, path: Path, shape: Shape, dtype: np.dtype[Any]) -> None:
        self.path = path
        self._shape = shape
        self._dtype = dtype
        self.parts = TextParts(path, self._parse)

    def join(self) -> Array:
        """The rows that were read, [rows, *shape]."""
        return np.concatenate(self.parts.found).reshape(-1, *self._shape)

    def _parse(self, lines: Sequence[Line]) -> Array:
        try:
            rows = self._numbers([text for _, text in lines])
        except ValueError:
            rows = None
        if rows is None or rows.shape[1] != math.prod(self._shape):
            raise self._fault(lines)
        if rows.dtype.kind == "f":
            for row in np.flatnonzero(np.isinf(rows).any(1)).tolist():
                self._check_range(*lines[row])
        return rows

    def _check_range(self, number: int, text: str) -> None:
        """Refuse numbers that have become infinite in this dtype."""
        for column, value in enumerate(text.split(","), 1):
            if np.isinf(self._numbers([value])).any() and "inf" not in value.lower():
                raise DataFileError(
                    f"{self.path}, line {number}, column {column}: {shortened(value)} "
                    f"is beyond dtype {self._dtype}"
                )

    def _numbers(self, texts: list[str]) -> Array:
        return np.loadtxt(texts, self._dtype, comments=None, delimiter=",", ndmin=2)

    def _fault(self, lines: Sequence[Line]) -> DataFileError:
        """What is wrong with the first line that cannot be read."""
        width = math.prod(self._shape)
        for number, text in lines:
            where = f"{self.path}, line {number}"
            values = text.split(",")
            if len(values) != width:
                return DataFileError(
                    f"{where}: it has {len(values)} numbers, and rows of shape "
                    f"{self._shape} need {width}"
                )
            for column, value in enumerate(values, 1):
                if not self._reads(value, 1):
                    return DataFileError(
                        f"{where}, column {column}: {shortened(value)} is no number of "
                        f"dtype {self._dtype}"
                    )
            if not self._reads(text, width):
                break  # a carriage return inside, say
        return DataFileError(f"{where}: it cannot be read as a row of numbers")

    def _reads(self, text: str, width: int) -> bool:
        """Whether `text` is one row of `width` numbers."""
        try:
            return bool(text.strip()) and self._numbers([text]).shape == (1, width)
        except ValueError:
            return False
