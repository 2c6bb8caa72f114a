"""Keeping the caller's arrays safe while dispatched work may still read them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import trio
from numpy.typing import NDArray

Array = NDArray[Any]

# More bytes than this are never copied on the Trio thread.
COPY_LIMIT = 1 << 20


class Inputs:
    """The inputs of dispatched work: copies of small ones, else a count of readers.

    Attributes:
        arrays: What the devices read.
        copied: Set when no device reads the caller's arrays; None if they are copies.
    """

    def __init__(
        self, arrays: Mapping[str, Array], devices: int, keeps: bool = False
    ) -> None:
        """Keep the arrays safe.

        Args:
            arrays: The caller's.
            devices: How many devices read them.
            keeps: Whether they may be needed once more after that.
        """
        self.arrays = arrays
        self.copied: trio.Event | None = None
        self._keeps = keeps
        if sum(map(size_in_bytes, arrays.values())) <= COPY_LIMIT:
            self.arrays = {name: array.copy() for name, array in arrays.items()}
            return
        self.copied = trio.Event()
        self._readers = set(range(devices))
        self._lock = threading.Lock()
        self._token = trio.lowlevel.current_trio_token()

    def done(self, device: int) -> None:
        """A device reads the arrays no more; on its thread, any number of times."""
        if self.copied is None:
            return
        with self._lock:
            if not self._readers:
                return
            self._readers.discard(device)
            if self._readers:
                return
        if self._keeps:
            self.arrays = {name: array.copy() for name, array in self.arrays.items()}
        with suppress(trio.RunFinishedError):  # then nobody is left who could wait
            self._token.run_sync_soon(self.copied.set)


def size_in_bytes(array: Any) -> int:
    """Bytes of an array, or of a scipy.sparse CSR matrix."""
    if hasattr(array, "tocsr"):
        return sum(part.nbytes for part in (array.data, array.indices, array.indptr))
    return int(array.nbytes)
