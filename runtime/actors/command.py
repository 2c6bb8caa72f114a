"""A command: work for one or several device threads, begun on all or on none.

The command is one object in the mailboxes of all its threads. The first thread that
reaches it begins it for all of them; before that it can be withdrawn, from all of them.
Once begun it runs to its end everywhere, and the task that waits for it waits for that.

Next: `runtime.actors.device_thread`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Generic, TypeVar

import trio

from runtime.actors import turns
from runtime.actors.barrier import Barrier
from runtime.actors.doorbell import Doorbell, Doorbells

T = TypeVar("T")


class State(Enum):
    """How far a command is."""

    QUEUED = auto()
    BEGUN = auto()
    WITHDRAWN = auto()


class Command(Generic[T]):
    """One job per thread, and what became of them.

    Attributes:
        label: What it does, for traces and for the list of what blocks a close.
        places: Names of the devices, one per job.
        finished: Whether all jobs have ended; changes on the Trio thread only.
        errors: What each job raised, or None.
        together: Where the threads meet before they begin anything else; or None.
        doorbells: What to wait with, set by whoever sends it; None to have Trio called.
    """

    __slots__ = (
        "_doorbell",
        "_jobs",
        "_left",
        "_lock",
        "_on_finish",
        "_on_withdraw",
        "_results",
        "_state",
        "_task",
        "_token",
        "doorbells",
        "errors",
        "finished",
        "label",
        "places",
        "together",
    )

    def __init__(
        self,
        label: str,
        jobs: Sequence[Callable[[], T]],
        places: Sequence[str],
        *,
        together: bool = False,
        on_finish: Callable[[], None] | None = None,
        on_withdraw: Callable[[], None] | None = None,
    ) -> None:
        """Make a command; must be called from Trio.

        Args:
            label: What it does.
            jobs: What each thread is to run.
            places: Names of the devices.
            together: Whether no thread may begin its next command before all jobs of
                this one have ended.
            on_finish: Called on the Trio thread when all jobs have ended.
            on_withdraw: Called on the Trio thread while the command is being
                withdrawn, when no thread can have passed it yet.
        """
        self.label = label
        self.places = places
        self.finished = False
        self.errors: list[BaseException | None] = [None] * len(jobs)
        self.together = Barrier(len(jobs)) if together else None
        self.doorbells: Doorbells | None = None
        self._doorbell: Doorbell | None = None  # of the task that waits, if it has one
        self._jobs = jobs
        self._results: list[Any] = [None] * len(jobs)
        self._left = len(jobs)
        self._lock = threading.Lock()
        self._state = State.QUEUED
        self._on_finish = on_finish
        self._on_withdraw = on_withdraw
        self._task: trio.lowlevel.Task | None = None
        self._token = trio.lowlevel.current_trio_token()

    # On a device thread -----------------------------------------------------------

    def begin(self) -> bool:
        """Begin for all threads; False if the command was withdrawn."""
        with self._lock:
            if self._state is State.WITHDRAWN:
                return False
            self._state = State.BEGUN
            return True

    def run(self, index: int) -> bool:
        """Run one thread's job; True if it was the last to end."""
        try:
            self._results[index] = self._jobs[index]()
        except BaseException as error:
            self.errors[index] = error
        if self.together is not None:
            self.together.arrive()
        with self._lock:
            self._left -= 1
            return self._left == 0

    def announce(self) -> None:
        """Tell Trio that all jobs have ended."""
        with self._lock:
            if self._doorbell is not None:
                self._doorbell.ring()
                return
        with suppress(trio.RunFinishedError):  # then nobody is left who could wait
            self._token.run_sync_soon(self._finish)

    # On the Trio thread -----------------------------------------------------------

    @property
    def withdrawn(self) -> bool:
        """Whether it was taken back before any thread began it."""
        return self._state is State.WITHDRAWN

    def withdraw(self) -> bool:
        """Take the command back from all threads; False if one has begun it."""
        with self._lock:
            if self._state is not State.QUEUED:
                return self._state is State.WITHDRAWN
            if self._on_withdraw is not None:
                self._on_withdraw()
            self._state = State.WITHDRAWN
            self._jobs = ()
            self._on_finish = self._on_withdraw = None
            return True

    async def wait(self, *, abandon: bool = False) -> None:
        """Return when all jobs have ended, whatever came of them.

        Only one task may wait. Cancellation withdraws the command; if it has begun
        already, the call waits for its end and returns normally, unless it may
        `abandon` the command, which then runs on unattended.
        """
        if self.finished or self.withdrawn:
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        doorbell = self._listen()
        if doorbell is not None:
            await self._wait_for(doorbell, abandon)
            turns.gave_way()
            return
        self._task = trio.lowlevel.current_task()

        def abort(raise_cancel: Any) -> trio.lowlevel.Abort:
            if self.withdraw() or abandon:
                self._task = None
                return trio.lowlevel.Abort.SUCCEEDED
            return trio.lowlevel.Abort.FAILED

        await trio.lowlevel.wait_task_rescheduled(abort)
        turns.gave_way()

    def results(self) -> list[T]:
        """What the jobs returned; asked for once.

        Raises:
            BaseException: what the job of the lowest index raised; what others raised
                stands in its notes.
        """
        error = first_error(self.errors, self.places)
        if error is None:
            return self._results
        # Its traceback holds this frame and the command: with references back, memory
        # and files of what failed would stay until the garbage collector comes.
        self.errors = [None] * len(self.errors)
        try:
            raise error
        finally:
            del error

    def _listen(self) -> Doorbell | None:
        """A doorbell that will be rung; None if Trio will be told otherwise."""
        doorbell = None if self.doorbells is None else self.doorbells.take()
        if doorbell is None:
            return None
        with self._lock:
            if self._left:
                self._doorbell = doorbell
                return doorbell
        self._give_back(doorbell)
        return None

    async def _wait_for(self, doorbell: Doorbell, abandon: bool) -> None:
        interrupt: BaseException | None = None
        try:
            await doorbell.wait()
        except BaseException as error:
            if self.withdraw() or abandon:
                self._ignore(doorbell)
                raise
            if not isinstance(error, trio.Cancelled):
                interrupt = error  # ctrl-C, which nobody would repeat
            while not await self._is_heard(doorbell):
                pass
        self._give_back(doorbell)
        self._finish()
        if interrupt is not None:
            raise interrupt

    async def _is_heard(self, doorbell: Doorbell) -> bool:
        """Wait whatever is cancelled; False if ctrl-C came once more meanwhile."""
        try:
            with trio.CancelScope(shield=True):
                await doorbell.wait()
        except KeyboardInterrupt:
            return False
        return True

    def _ignore(self, doorbell: Doorbell) -> None:
        """Wait no more; if it was rung meanwhile, the command has finished."""
        with self._lock:
            self._doorbell = None
            rung = not (self._left or self._state is State.WITHDRAWN)
        self._give_back(doorbell)
        if rung:
            self._finish()

    def _give_back(self, doorbell: Doorbell) -> None:
        assert self.doorbells is not None
        self._doorbell = None
        doorbell.silence()
        self.doorbells.give_back(doorbell)

    def _finish(self) -> None:
        self.finished = True
        if self._on_finish is not None:
            self._on_finish()
        # They hold large arrays, and often this command.
        self._jobs = ()
        self._on_finish = self._on_withdraw = None
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)


def first_error(
    errors: Sequence[BaseException | None], places: Sequence[str]
) -> BaseException | None:
    """The first error, with its device and the other devices' errors as notes."""
    failed = [(p, e) for p, e in zip(places, errors, strict=True) if e is not None]
    if not failed:
        return None
    place, error = failed[0]
    error.add_note(f"on {place}")
    for place, other in failed[1:]:
        words = [f"also on {place}: {type(other).__name__}: {other}"]
        words += getattr(other, "__notes__", [])
        error.add_note("; ".join(words))
    return error
