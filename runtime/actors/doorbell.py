"""How a device thread wakes the one task that waits for it.

Trio's own `run_sync_soon` first wakes a task of Trio's, which wakes the waiting one in
another pass of its loop. A task that waits for a file descriptor of its own is woken
directly, some 40 microseconds sooner.
"""

from __future__ import annotations

import os
import sys

import trio


class Doorbell:
    """One waiting task's file descriptor; whose turn it is, `Doorbells` knows."""

    __slots__ = ("_descriptor",)

    def __init__(self) -> None:
        assert sys.platform == "linux"
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        """Wake the task that waits, or that will wait; from any thread."""
        assert sys.platform == "linux"
        os.eventfd_write(self._descriptor, 1)

    async def wait(self) -> None:
        """Wait until it has been rung. Cancellation leaves it as it was."""
        await trio.lowlevel.wait_readable(self._descriptor)

    def silence(self) -> None:
        """Forget that it was rung."""
        assert sys.platform == "linux"
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:  # it was not
            return

    def close(self) -> None:
        """Give the file descriptor back."""
        os.close(self._descriptor)


class Doorbells:
    """The doorbells of a runtime: as many as tasks ever waited at once."""

    def __init__(self) -> None:
        self._idle: list[Doorbell] = []
        self._available = sys.platform == "linux"

    def take(self) -> Doorbell | None:
        """A doorbell for one wait, to be given back; None if there are none here."""
        if not self._available:
            return None
        if self._idle:
            return self._idle.pop()
        try:
            return Doorbell()
        except OSError:  # the process has no descriptor left; it is only slower without
            return None

    def give_back(self, doorbell: Doorbell) -> None:
        """Keep a doorbell for the next who waits; nobody can ring it any more."""
        if self._available:
            self._idle.append(doorbell)
        else:
            doorbell.close()

    def close(self) -> None:
        """Close all; those in use close when they are given back."""
        self._available = False
        while self._idle:
            self._idle.pop().close()
