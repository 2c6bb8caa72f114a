"""One OS thread with a mailbox: where the commands of one device run, in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Literal

import trio

from runtime.actors.barrier import Barrier
from runtime.actors.command import Command
from runtime.actors.linger import Word, count_departures, depart

Event = Literal["queued", "reached", "began", "ended"]
# Told of each event with the thread's name and the command: "queued" on the Trio
# thread, the others on the device thread; "reached" comes before a command may begin.
Observer = Callable[[Event, str, Command[Any]], None]


def nothing() -> None:
    """There is nothing to be done at the end."""


class DeviceThread:
    """Runs the commands of its mailbox one after another; started once.

    Attributes:
        name: The device's name, and the thread's.
        observe: Told what happens, for traces and tests.
    """

    def __init__(self, name: str, observe: Observer | None = None) -> None:
        self.name = name
        self.observe = observe
        self._mailbox: SimpleQueue[tuple[Command[Any], int] | None] = SimpleQueue()
        # Counted by the Trio thread and by the device thread; equal when idle.
        self._sent = 0
        self._queued = Word(0)  # the same, for a thread that lingers
        self._passed = 0
        self._departures = Word(0)
        self._lingers = False
        self._last: Callable[[], None] = nothing
        self._running: tuple[str, float] | None = None
        self._together: Barrier | None = None  # of the last command
        self._token = trio.lowlevel.current_trio_token()
        self._stopped = trio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def native_id(self) -> int:
        """The operating system's number of the thread."""
        native_id = self._thread.native_id
        assert native_id is not None  # it has been started
        return native_id

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running; exact on the Trio thread."""
        return self._sent == self._passed

    @property
    def running(self) -> str | None:
        """What runs now and since when, in words."""
        running = self._running
        if running is None:
            return None
        label, since = running
        return f"`{label}` on {self.name} for {time.monotonic() - since:.1f} s"

    def put(self, command: Command[Any], index: int) -> None:
        """Enqueue job `index` of a command."""
        # An observer is told before the thread can have ended the command.
        hurries = self._lingers and self.idle and self.observe is None
        self._sent += 1
        self._mailbox.put((command, index))
        if hurries:
            self._queued.hand_over(self._sent, self._departures)
        else:
            self._queued.value = self._sent
        if self.observe is not None:
            self.observe("queued", self.name, command)

    def stop(self, last: Callable[[], None] = nothing) -> None:
        """End the thread after all that is queued, and after `last`; see `join`."""
        self._last = last
        self._mailbox.put(None)

    async def join(self) -> None:
        """Wait for the thread's end."""
        await self._stopped.wait()
        self._thread.join()  # it has nothing left to do but to return

    def _run(self) -> None:
        count_departures(self._departures)
        while (item := self._mailbox.get()) is not None:
            self._execute(*item)
            del item  # it may hold large arrays, and the next one may be long in coming
            depart()
            self._lingers = True
            self._queued.linger(self._passed)
            self._lingers = False
        self._last()
        with suppress(trio.RunFinishedError):  # then nobody is left who could wait
            self._token.run_sync_soon(self._stopped.set)

    def _execute(self, command: Command[Any], index: int) -> None:
        observe = self.observe
        if observe is not None:
            observe("reached", self.name, command)
        last = False
        if self._together is not None:
            self._together.join()
            self._together = None
        if command.begin():
            self._running = command.label, time.monotonic()
            if observe is not None:
                observe("began", self.name, command)
            last = command.run(index)
            if observe is not None:
                observe("ended", self.name, command)
            self._running = None
            self._together = command.together
        self._passed += 1
        if last:
            command.announce()
