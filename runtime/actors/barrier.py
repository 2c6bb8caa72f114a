"""Where the device threads of one command meet."""

from __future__ import annotations

import threading
import time

# A wake-up from the kernel takes some 50 us: looking a little longer than that is
# cheaper for threads that arrive almost together.
_SPIN_SECONDS = 60e-6


class Barrier:
    """A meeting that happens once, and that fails as soon as one party fails."""

    __slots__ = ("_failed", "_lock", "_missing", "_open")

    def __init__(self, parties: int) -> None:
        self._missing = parties
        self._failed = False
        self._lock = threading.Lock()
        self._open = threading.Event()

    def fail(self) -> None:
        """Let everybody go at once: this party does not come, the meeting is off."""
        self._failed = True
        self._open.set()

    def wait(self) -> bool:
        """Wait for all parties; False as soon as one of them has failed."""
        with self._lock:
            self._missing -= 1
            last = self._missing == 0
        if last:
            self._open.set()
        elif not self._spin():
            self._open.wait()
        return not self._failed

    def _spin(self) -> bool:
        end = time.perf_counter() + _SPIN_SECONDS
        while not self._open.is_set():
            if time.perf_counter() > end:
                return False
            time.sleep(0)  # gives up the interpreter lock, which the others need
        return True
