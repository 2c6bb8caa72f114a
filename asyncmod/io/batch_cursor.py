"""BatchCursor: which rows of a file make the next batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from asyncmod.io.iterator import State
from runtime.errors import AsyncmodError

Rows = np.ndarray[Any, np.dtype[np.int64]]
Tail = Literal["borrow", "repeat", "drop"]


class TooFewRowsError(AsyncmodError, ValueError):
    """There are fewer rows than one batch needs."""


@dataclass(frozen=True)
class BatchRows:
    """Rows of one batch.

    Attributes:
        index: Row numbers, the padding ones included.
        pad: How many at the end only fill the batch up.
    """

    index: Rows
    pad: int

    @property
    def where(self) -> Rows | slice:
        """`index` for NumPy: as a slice where the rows follow each other."""
        first, count = int(self.index[0]), len(self.index)
        if np.array_equal(self.index, np.arange(first, first + count)):
            return slice(first, first + count)
        return self.index


@dataclass
class BatchCursor:
    """A position in the rows of a file, moved batch by batch.

    Where the rows left over do not fill a batch, `tail` says what becomes of them.
    "borrow": rows from the start fill the batch, and the next epoch begins after
    them (MXNet's `round_batch=1`). "repeat": the rows that stood in these places of
    the batch before, as in MXNet, whose buffer is not cleared (`round_batch=0`).
    "drop": there is no such batch.
    """

    batch_size: int
    tail: Tail
    _position: int = field(default=0, init=False)
    _borrowed: int = field(default=0, init=False)

    def advance(self, count: int) -> BatchRows | None:
        """Move on in `count` rows; None at the end of the epoch.

        Raises:
            TooFewRowsError: a batch would have to borrow a row twice.
        """
        left = count - self._position
        if left <= 0 or (self.tail == "drop" and left < self._size):
            return None
        pad = max(0, self._size - left)
        if self.tail == "borrow" and count < self._size:
            raise TooFewRowsError(
                f"the file has {count} rows, and a batch of {self._size} would have to "
                "take some of them twice: use a smaller batch_size"
            )
        index = np.arange(self._position, self._position + self._size)
        if pad and self.tail == "repeat" and self._position:
            index[left:] -= self._size
        else:
            index %= count
        self._position += self._size
        if self.tail == "borrow":
            self._borrowed = pad
        return BatchRows(index, pad)

    def begin_epoch(self) -> None:
        """Go to the first row that the epoch before did not borrow."""
        self._position, self._borrowed = self._borrowed, 0

    def get_state(self) -> State:
        """The position, as plain data."""
        return {"position": self._position, "borrowed": self._borrowed}

    def set_state(self, state: State) -> None:
        """Go to the position of `state`."""
        self._position, self._borrowed = state["position"], state["borrowed"]

    @property
    def _size(self) -> int:
        return self.batch_size
