"""One iterator read ahead by a background task into a bounded queue."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import trio

from asyncmod.io.batch import DataBatch
from asyncmod.io.iterator import BatchIterator, State


@dataclass(frozen=True)
class Item:
    """A batch with the iterator's state after it; no batch means the end.

    An error comes after the batches that were read before it.
    """

    batch: DataBatch | None
    state: State
    error: Exception | None = None


class Lane:
    """Reads `inner` ahead, at most `depth` batches, until its end or an error."""

    def __init__(self, inner: BatchIterator, depth: int, copy: bool) -> None:
        self.items: deque[Item] = deque()
        self._filled = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._inner = inner
        self._depth = depth
        self._copy = copy
        self._scope = trio.CancelScope()
        self._finished = trio.Event()

    async def wait(self) -> None:
        """Wait until there is an item, or the lane was stopped."""
        if not self.items and not self._scope.cancel_called:
            await self._filled.park()

    def take(self) -> Item:
        """The oldest item."""
        self._room.unpark_all()
        return self.items.popleft()

    def stop(self) -> None:
        """Ask the task to leave `inner` alone, and wake who waits for items."""
        self._scope.cancel()
        self._filled.unpark_all()

    async def finished(self) -> None:
        """Wait until the task no longer touches `inner`."""
        await self._finished.wait()

    async def fill(self) -> None:
        """The background task; it never raises what `inner` raised."""
        ended = False
        try:
            with self._scope:
                while not ended:
                    while len(self.items) >= self._depth:
                        await self._room.park()
                    item = await self._read()
                    ended = item.batch is None
                    self.items.append(item)
                    self._filled.unpark_all()
        finally:
            self._finished.set()

    async def _read(self) -> Item:
        try:
            batch = await self._inner.next()
            if self._copy:
                batch = await trio.to_thread.run_sync(_copied, batch)
            return Item(batch, self._inner.get_state())
        except StopAsyncIteration:
            return Item(None, self._inner.get_state())
        except Exception as error:
            return Item(None, {}, error)


def _copied(batch: DataBatch) -> DataBatch:
    def copies(arrays: Any) -> list[Any]:
        return [
            array.copy() if hasattr(array, "toarray") else np.array(array, subok=True)
            for array in arrays
        ]

    label = getattr(batch, "label", None)
    return DataBatch(
        copies(batch.data),
        None if label is None else copies(label),
        getattr(batch, "pad", None),
        getattr(batch, "index", None),
        getattr(batch, "bucket_key", None),
        getattr(batch, "provide_data", None),
        getattr(batch, "provide_label", None),
    )
