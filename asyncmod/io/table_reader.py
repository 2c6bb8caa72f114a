"""TableReader: batches from a table that is read from files at first use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import trio

from asyncmod.io.batch import DataBatch
from asyncmod.io.batch_cursor import BatchCursor, Rows
from asyncmod.io.fairness import LARGE_COPY, checkpoint
from asyncmod.io.iterator import State
from asyncmod.io.named_arrays import NamedArray
from asyncmod.nd import NDArray
from runtime.errors import AsyncmodError

Array = np.ndarray[Any, np.dtype[Any]]
Where = Rows | slice


class DataFileError(AsyncmodError, ValueError):
    """A data file does not hold what it must; the message names file and line."""


@dataclass(frozen=True)
class Table:
    """Rows in memory.

    Attributes:
        index: Row numbers in the file.
        data: Gives the data of some rows.
        label: Gives their labels.
        row_bytes: About how large one row is; large batches are made in a thread.
    """

    index: Rows
    data: Callable[[Where], Any]
    label: Callable[[Where], Any]
    row_bytes: int


def rows_of(array: Array) -> Callable[[Where], NDArray]:
    """Rows of `array` for a Table: read-only views of slices, else copies."""
    source = NamedArray("rows", array, array.dtype)
    return lambda where: source.rows(where, 0)


class TableReader:
    """What the file iterators have in common: `next`, `reset` and states.

    Args:
        load: Reads the table, beside the event loop; called until it has succeeded.
        cursor: Says which rows come next.
    """

    def __init__(
        self, load: Callable[[], Awaitable[Table]], cursor: BatchCursor
    ) -> None:
        self._load = load
        self._cursor = cursor
        self._table: Table | None = None
        self._rows: int | None = None
        self._reading = trio.Lock()

    async def next(self) -> DataBatch:
        """The next batch; StopAsyncIteration at the end. Cancelling loses nothing."""
        await checkpoint()
        async with self._reading:
            if self._table is None:
                self._table = await self._load()
            table = self._table
            self._check_length(table)
            if table.row_bytes * self._cursor.batch_size > LARGE_COPY:
                batch = await trio.to_thread.run_sync(self._advance, table)
            else:
                batch = self._advance(table)
        if batch is None:
            raise StopAsyncIteration
        return batch

    async def reset(self) -> None:
        """Begin the next epoch."""
        await checkpoint()
        self._cursor.begin_epoch()

    def get_state(self) -> State:
        """The position, and the count of rows once the files have been read."""
        return {**self._cursor.get_state(), "rows": self._rows}

    def set_state(self, state: State) -> None:
        """Continue from `state`; the next batch shows whether the files fit it."""
        self._cursor.set_state(state)
        self._rows = state["rows"]

    def _advance(self, table: Table) -> DataBatch | None:
        rows = self._cursor.advance(len(table.index))
        if rows is None:
            return None
        where = rows.where
        return DataBatch(
            [table.data(where)],
            [table.label(where)],
            pad=rows.pad,
            index=table.index[where].copy(),
        )

    def _check_length(self, table: Table) -> None:
        count = len(table.index)
        if self._rows not in (None, count):
            raise DataFileError(
                f"the state was saved over {self._rows} rows, and these files have "
                f"{count}: give the same files"
            )
        self._rows = count
