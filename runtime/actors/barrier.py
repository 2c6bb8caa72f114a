"""Where the device threads of one command meet."""

from __future__ import annotations

import threading

from runtime.actors.linger import Word


class Barrier:
    """A meeting that happens once, and that fails as soon as one party fails."""

    __slots__ = ("_failed", "_gates", "_lock", "_missing", "_open")

    def __init__(self, parties: int) -> None:
        self._missing = parties
        self._failed = False
        self._open = Word(0)  # 1 as soon as nobody has to wait any more
        self._lock = threading.Lock()
        self._gates: list[threading.Lock] = []  # one held lock per waiting thread

    def arrive(self) -> None:
        """Come, and do not wait for the others."""
        with self._lock:
            self._missing -= 1
            if self._missing == 0:
                self._let_go()

    def fail(self) -> None:
        """Let everybody go at once: this party does not come, the meeting is off."""
        with self._lock:
            self._failed = True
            self._let_go()

    def join(self) -> bool:
        """Wait until all have come; False as soon as one of them has failed."""
        self._open.linger(0)
        with self._lock:
            if self._missing == 0 or self._failed:
                return not self._failed
            gate = threading.Lock()
            gate.acquire()
            self._gates.append(gate)
        gate.acquire()
        return not self._failed

    def wait(self) -> bool:
        """Come and wait until all have come; False if one of them has failed."""
        self.arrive()
        return self.join()

    def _let_go(self) -> None:
        self._open.value = 1
        for gate in self._gates:
            gate.release()
        self._gates.clear()
