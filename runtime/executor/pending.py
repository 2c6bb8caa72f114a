"""Work that was dispatched and not waited for: how pipelines keep devices busy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio
from numpy.typing import NDArray

from runtime.actors import turns
from runtime.actors.command import Command, first_error
from runtime.errors import WorkerDied
from runtime.executor.accumulation import Part
from runtime.executor.dispatch import Inputs
from runtime.executor.observation import Observe
from runtime.executor.updater import Updater

Array = NDArray[Any]


@dataclass(frozen=True)
class Dispatched:
    """What a dispatched step was asked to do.

    Attributes:
        inputs: The whole batch.
        updater: How to update.
        observe: What looks at everything inside, if anything.
        part: What it does for an accumulation, if anything.
        outputs: Whether its outputs are copied.
    """

    inputs: Inputs
    updater: Updater
    observe: Observe | None
    part: Part | None
    outputs: bool


class Pending:
    """A dispatched step or prediction; one task at a time may wait for it.

    Attributes:
        compute_seconds: Slowest device's forward and backward; 0 until finished.
        reduce_seconds: Slowest device's sum of gradients and update.
        on_withdrawn: Called by `settle` if the work never began, or was lost.
        work: What it was asked to do, if it is a step that may have to be done again.
        redo: Does work again that was lost with its device, or raises its death; None
            if nobody does.
    """

    def __init__(
        self,
        command: Command[Any] | None = None,
        copied: trio.Event | None = None,
        outputs: list[Array] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Made by a group.

        Args:
            command: The work; None if it is done already.
            copied: Set when the inputs are not read any more; None if they are not.
            outputs: The merged outputs, filled when the work is done; None if they
                are not copied.
            error: What went wrong in work that is done already.
        """
        self.compute_seconds = 0.0
        self.reduce_seconds = 0.0
        self.on_withdrawn: Callable[[], None] | None = None
        self.work: Dispatched | None = None
        self.redo: Callable[[WorkerDied], Awaitable[None]] | None = None
        self._command = command
        self._copied = copied
        self._outputs = outputs
        self._error = error
        self._complete = False  # whether somebody has waited, and all was well

    def begin(self, command: Command[Any], outputs: list[Array] | None = None) -> None:
        """The work is in this command now."""
        self._command, self._outputs, self._error = command, outputs, None
        self._complete = False

    def fail(self, error: BaseException) -> None:
        """The work cannot be done again."""
        self._command, self._error = None, error

    @property
    def lost(self) -> bool:
        """Whether the work was lost with its device, and may be done again."""
        return (
            self.redo is not None
            and self._command is not None
            and self._command.finished
            and any(isinstance(error, WorkerDied) for error in self._command.errors)
        )

    @property
    def over(self) -> bool:
        """Whether nothing remains to be done."""
        command = self._command
        ended = command is None or command.withdrawn or command.finished
        return ended and not self.lost

    async def copied(self) -> None:
        """Return when the work no longer reads the caller's input arrays.

        At once, without a checkpoint, for inputs of up to 1 MB, which are copied at
        dispatch; otherwise when the devices have copied them. Cancellation withdraws
        the work if it has not begun, else it waits for the copies.
        """
        if self._copied is None or self._copied.is_set():
            return
        assert self._command is not None
        try:
            await self._copied.wait()
        except trio.Cancelled:
            if not self._command.withdraw():
                with trio.CancelScope(shield=True):
                    await self._copied.wait()
            raise

    async def wait(self) -> None:
        """Return when the work has finished on all devices; raise what went wrong.

        Cancellation withdraws the work if it has not begun on any device, else the
        call waits for its end and returns.
        """
        while True:
            command = self._command
            if command is None or command.finished:
                await turns.checkpoint()
            else:
                await command.wait()
            if command is not None:
                if command.withdrawn:
                    raise RuntimeError("this step was withdrawn: it never began")
                if self._error is None:
                    self._error = first_error(command.errors, command.places)
            if self._error is None:
                self._complete = True
                return
            if self.redo is None or not isinstance(self._error, WorkerDied):
                raise self._error
            await self.redo(self._error)

    async def outputs(self) -> list[Array]:
        """Wait, then return the merged outputs, which were asked for at dispatch.

        After a `wait` that has returned this is no checkpoint any more.
        """
        if not self._complete:
            await self.wait()
        if self._outputs is None:
            raise RuntimeError("this step was dispatched without `outputs`")
        return self._outputs

    async def settle(self) -> bool:
        """Leave nothing in flight: withdraw the work, or wait for its end.

        Never raises what went wrong in the work and cannot be cancelled (at most one
        step's time). For `finally` blocks; settle the newest first.

        Returns:
            Whether the work was done.
        """
        command = self._command
        if command is None:
            return self._error is None
        if not command.withdraw():
            with trio.CancelScope(shield=True):
                await command.wait()
            if not self.lost:
                return not any(command.errors)
        self.redo = None
        if self.on_withdrawn is not None:
            self.on_withdrawn()
        return False
