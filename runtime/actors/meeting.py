"""A barrier in plain memory, so that native code can come to it and wait at it."""

from __future__ import annotations

import ctypes
import time

from runtime.actors.linger import linger

_NAP_SECONDS = 50e-6


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

        Native code cannot wake a thread that blocks, so this looks again and again, and
        naps in between.
        """
        while True:
            missing, failed = self._words
            if failed or not missing:
                return not failed
            linger(self.address, missing)
            time.sleep(_NAP_SECONDS)
