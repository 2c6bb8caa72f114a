"""The rows of a history in a checkpoint: packed once each, however often it is saved.

Next: `asyncmod.history`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import trio
from numpy.typing import NDArray

from asyncmod.checkpoint.staging import Staging
from asyncmod.history import History, Row

EPOCHS, BATCHES = "history/epochs", "history/batches"


class HistoryRows:
    """Saves a history again and again, and puts it back."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._epochs = _Packed()
        self._batches = _Packed()

    async def gather(self, staging: Staging) -> dict[str, Any]:
        """Store the rows in the staging; returns the rest, as plain data."""
        history = self._history

        def store() -> None:
            epochs = self._epochs.extend(history.epochs, 0)
            batches = self._batches.extend(history.batches, history.dropped_batches)
            staging.put(EPOCHS, epochs)
            staging.put(BATCHES, batches)

        await trio.to_thread.run_sync(store)
        return {
            "timing": history.timing,
            "events": history.events,
            "dropped_batches": history.dropped_batches,
        }

    async def put_back(
        self, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]
    ) -> None:
        """Give the history its rows and sums back."""
        history = self._history
        history.epochs = await trio.to_thread.run_sync(_rows, arrays, EPOCHS)
        history.batches = await trio.to_thread.run_sync(_rows, arrays, BATCHES)
        history.timing = dict(state["timing"])
        history.events = list(state.get("events", ()))  # older files have none
        history.dropped_batches = state["dropped_batches"]


class _Packed:
    """Rows as msgpack, one after another."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._count = self._dropped = 0

    def extend(self, rows: list[Row], dropped: int) -> bytearray:
        """Add the rows that are not yet packed; `dropped` were before them."""
        if dropped != self._dropped:
            self._content, self._count, self._dropped = bytearray(), 0, dropped
        for row in rows[self._count :]:
            self._content += msgpack.packb(row, default=_plain)
        self._count = len(rows)
        return self._content


def _rows(arrays: Mapping[str, NDArray[Any]], name: str) -> list[Row]:
    # The thread may keep its arguments for a moment: a view of a file among them would
    # keep that open.
    packed = arrays[name]
    unpacker = msgpack.Unpacker(max_buffer_size=max(1, packed.nbytes))
    unpacker.feed(packed.data)
    return list(unpacker)


def _plain(value: Any) -> int | float:
    """A number that msgpack does not know: of NumPy, or of a metric of one's own."""
    return value.item() if isinstance(value, np.integer) else float(value)
