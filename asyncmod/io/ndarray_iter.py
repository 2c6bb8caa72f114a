"""NDArrayIter: batches from arrays in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import trio

from asyncmod import random
from asyncmod.errors import UnsupportedError
from asyncmod.io.batch import DataBatch, DataDesc
from asyncmod.io.fairness import LARGE_COPY, checkpoint
from asyncmod.io.iterator import DataIter, State
from asyncmod.io.named_arrays import NamedArray, name_arrays
from runtime.errors import AsyncmodError

Rows = np.ndarray[Any, np.dtype[np.int64]]
LastBatch = Literal["pad", "discard", "roll_over"]
Arrays = Any  # an array, a list of arrays, or a dict of them


class DataError(AsyncmodError, ValueError, AssertionError):
    """Arrays given to an iterator do not fit together."""


class NDArrayIter(DataIter):
    """Batches from one or several arrays in memory, memory-mapped ones included.

    The arrays are not copied as a whole. Without `shuffle` a batch is a read-only
    view of them where no cast is needed; otherwise its rows are copied (in a
    thread if there are more than 1 MB of them).

    Args:
        data: An array, a list of arrays (named `_0_data`, `_1_data`, ...) or a dict
            from name to array; a dict is sorted by name. Sparse matrices give batches
            that are `scipy.sparse` CSR matrices, and need "discard".
        label: Likewise for labels, or None.
        batch_size: Rows per batch.
        shuffle: Draw a new order of the rows for every epoch.
        last_batch_handle: What becomes of rows that do not fill a batch. "pad" takes
            rows from the epoch's start to fill it and says so in `batch.pad`;
            "discard" drops them; "roll_over" begins the next epoch with them.
        data_name: Name of a single data array.
        label_name: Name of a single label array.
        layout: Axes of the data; `N` marks the batch axis of every array.
        keep_dtype: Hand out NumPy arrays in their own dtype. Otherwise they are cast
            to float32, as MXNet does; `mx.nd` arrays always keep theirs.
        seed: Seed of the shuffle; drawn from `mx.random` unless given.

    Raises:
        DataError: no data, different lengths, an unknown `last_batch_handle`.
        TypeError: `data` or `label` is of another type.
        UnsupportedError: sparse data without last_batch_handle="discard".
    """

    def __init__(
        self,
        data: Arrays,
        label: Arrays = None,
        batch_size: int = 1,
        shuffle: bool = False,
        last_batch_handle: LastBatch = "pad",
        data_name: str = "data",
        label_name: str = "softmax_label",
        layout: str = "NCHW",
        *,
        keep_dtype: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size)
        if last_batch_handle not in ("pad", "discard", "roll_over"):
            raise DataError(
                "`last_batch_handle` must be 'pad', 'discard' or 'roll_over', not "
                f"{last_batch_handle!r}"
            )
        if seed is not None and not 0 <= seed < 2**64:
            raise DataError(f"`seed` must be from 0 to 2**64 - 1, not {seed}")
        if batch_size < 1:
            raise DataError(f"`batch_size` must be at least 1, not {batch_size}")
        self.layout = layout
        self.shuffle = shuffle
        self.last_batch_handle: LastBatch = last_batch_handle
        self._axis = max(DataDesc.get_batch_axis(layout), 0)
        self.data = name_arrays(data, data_name, keep_dtype, required=True)
        self.label = name_arrays(label, label_name, keep_dtype, required=False)
        self._check_sparse()
        self.num_data = self._common_length()
        self.provide_data = [self._describe(source) for source in self.data]
        self.provide_label = [self._describe(source) for source in self.label]
        self._seed = random.draw_seed() if shuffle and seed is None else seed or 0
        self._in_thread = max(self._bytes_per_batch(), 8 * self.num_data) > LARGE_COPY
        self._advancing = trio.Lock()
        self._rows: Rows | None = None
        self._epoch = 0
        self._cursor = 0
        self._carried: list[int] = []
        self._exhausted = False

    async def next(self) -> DataBatch:
        """The next batch; StopAsyncIteration at the end. Cancelling loses nothing."""
        await checkpoint()
        if self._in_thread:
            async with self._advancing:
                batch = await trio.to_thread.run_sync(self._advance)
        else:
            batch = self._advance()
        if batch is None:
            raise StopAsyncIteration
        return batch

    def __length_hint__(self) -> int:
        """About how many batches an epoch has; for displays of progress."""
        return -(-self.num_data // self.batch_size)

    async def reset(self) -> None:
        """Begin the next epoch; left-over rows carry over only from a finished one."""
        await checkpoint()
        self._begin_epoch(self._carried if self._exhausted else [])

    def hard_reset(self) -> None:
        """Begin the next epoch and forget rows carried over (`roll_over`)."""
        self._begin_epoch([])

    def get_state(self) -> State:
        """Seed, epoch, position, and the rows carried over (less than a batch)."""
        return {
            "seed": self._seed,
            "epoch": self._epoch,
            "cursor": self._cursor,
            "carried": list(self._carried),
            "exhausted": self._exhausted,
            "num_data": self.num_data,
        }

    def set_state(self, state: State) -> None:
        """Continue from `state`.

        Raises:
            DataError: the state was taken over data of another length.
        """
        if state["num_data"] != self.num_data:
            raise DataError(
                f"the state was saved over {state['num_data']} rows, and these data "
                f"have {self.num_data}: give the same data"
            )
        self._seed, self._epoch = state["seed"], state["epoch"]
        self._cursor, self._carried = state["cursor"], list(state["carried"])
        self._exhausted, self._rows = state["exhausted"], None

    def _begin_epoch(self, carried: list[int]) -> None:
        self._epoch += 1
        self._cursor, self._carried, self._exhausted = 0, carried, False
        self._rows = None

    def _advance(self) -> DataBatch | None:
        """The next batch, or None at the end; as a whole, or not at all."""
        if self._exhausted:
            return None
        rows = self._epoch_rows()
        end = self._cursor + self.batch_size
        pad = max(0, end - len(rows))
        at_end = self._cursor >= len(rows)
        if at_end or (pad and self.last_batch_handle != "pad"):
            rolls_over = self.last_batch_handle == "roll_over"
            self._carried = rows[self._cursor :].tolist() if rolls_over else []
            self._exhausted = True
            return None
        if pad:
            index = rows.take(range(self._cursor, end), mode="wrap")
        else:
            index = rows[self._cursor : end].copy()
        where = _as_slice(index)
        batch = DataBatch(
            [source.rows(where, self._axis) for source in self.data],
            [source.rows(where, self._axis) for source in self.label],
            pad=pad,
            index=index,
        )
        self._cursor = end
        return batch

    def _epoch_rows(self) -> Rows:
        """This epoch's rows in order; the carried ones come before them."""
        if self._rows is None:
            if self.shuffle:
                # Keyed by (seed, epoch), so that a position is all a state needs.
                bits = np.random.Philox(key=self._seed, counter=[0, 0, 0, self._epoch])
                rows = np.random.Generator(bits).permutation(self.num_data)
            else:
                rows = np.arange(self.num_data)
            self._rows = np.concatenate([np.array(self._carried, np.int64), rows])
        return self._rows

    def _check_sparse(self) -> None:
        for source in self._sources:
            if source.is_sparse and self.last_batch_handle != "discard":
                raise UnsupportedError(
                    f"`{source.name}` is sparse, and NDArrayIter takes sparse matrices "
                    "only with last_batch_handle='discard', not "
                    f"{self.last_batch_handle!r}"
                )
            if source.is_sparse and self._axis:
                raise DataError(
                    f"`{source.name}` is sparse, so that its rows are the batch axis; "
                    f"layout (={self.layout!r}) says axis {self._axis}"
                )

    def _common_length(self) -> int:
        lengths = {source.name: source.length(self._axis) for source in self._sources}
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"all arrays must have as many rows along axis {self._axis}, and they "
                f"have {lengths}"
            )
        count = next(iter(lengths.values()))
        if count == 0:
            raise DataError(f"the arrays {list(lengths)} have no rows")
        return count

    def _describe(self, source: NamedArray) -> DataDesc:
        shape = list(source.array.shape)
        shape[self._axis] = self.batch_size
        return DataDesc(source.name, shape, source.dtype, self.layout)

    def _bytes_per_batch(self) -> int:
        rows = sum(
            int(source.dtype.itemsize * math.prod(source.array.shape))
            for source in self._sources
        )
        return rows // self.num_data * self.batch_size

    @property
    def _sources(self) -> Sequence[NamedArray]:
        return [*self.data, *self.label]


def _as_slice(index: Rows) -> Rows | slice:
    """`index` as a slice where its rows follow each other."""
    first, count = int(index[0]), len(index)
    if index[-1] - first == count - 1 and (np.diff(index) == 1).all():
        return slice(first, first + count)
    return index
