"""A barrier in plain memory, so that native code can come to it and wait at it."""

from __future__ import annotations

import ctypes
import time

_FIRST_NAP, _LONGEST_NAP = 50e-6, 1e-3  # seconds
_GROWTH = 1.1  # so that naps add a tenth to the wait at most


class Meeting:
    """Where the device threads of one step meet, once, in the middle of a launch.

    Native code counts itself in and waits for a little while; if the others are long in
    coming, `wait` does the rest of the waiting.

    Attributes:
        address: Of two int64: how many are missing, and whether one has failed.
    """

    __slots__ = ("_words", "address")

    def __init__(self, parties: int) -> None:
        self._words = (ctypes.c_int64 * 2)(parties, 0)
        self.address = ctypes.addressof(self._words)

    def fail(self) -> None:
        """This party does not come: nobody shall wait for it."""
        self._words[1] = 1

    def wait(self) -> bool:
        """Wait until all have come; False as soon as one of them has failed.

        Native code cannot wake a thread that blocks, so this looks again and again. It
        has looked without a break already; from here on it naps in between, since the
        other device may be much slower and the core is for others.
        """
        nap = _FIRST_NAP
        while True:
            missing, failed = self._words
            if failed or not missing:
                return not failed
            time.sleep(nap)
            nap = min(nap * _GROWTH, _LONGEST_NAP)
