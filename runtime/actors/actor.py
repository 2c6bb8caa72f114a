"""A device actor: one device, alive on its own thread."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import trio

from runtime.actors.command import Command
from runtime.actors.device_thread import DeviceThread, Observer
from runtime.actors.doorbell import Doorbells
from runtime.actors.supervisor import Supervisor, WorkerPolicy
from runtime.context import DeviceId


class DeviceActor:
    """The thread of a device, and whatever object drives the device.

    Attributes:
        device_id: Which device.
        thread: Its thread.
        doorbells: What tasks wait with for its commands.
        pid: The process that works for the device; None if it has none of its own.
        supervisor: Counts the deaths of such processes.
        policy: What is borne from them.
    """

    def __init__(
        self,
        device_id: DeviceId,
        doorbells: Doorbells,
        observe: Observer | None = None,
        lane: int = 0,
        supervisor: Supervisor | None = None,
        workers: WorkerPolicy | None = None,
        on_start: Callable[[DeviceActor], None] | None = None,
    ) -> None:
        self.device_id = device_id
        self.doorbells = doorbells
        name = f"{device_id}, lane {lane}" if lane else str(device_id)
        self.thread = DeviceThread(name, observe)
        self.pid: int | None = None
        self.supervisor = supervisor or Supervisor()
        self.policy = workers or WorkerPolicy()
        self._on_start = on_start
        self._device: Any = None
        self._token = trio.lowlevel.current_trio_token()

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running on the device."""
        return self.thread.idle

    def device(self, make: Callable[[DeviceActor], Any]) -> Any:
        """The device, made by the first call; on the device's thread only."""
        if self._device is None:
            self._device = make(self)
        return self._device

    def stop(self) -> None:
        """Close the device and end the thread, after all that is queued."""
        self.thread.stop(self._close)

    def started(self, pid: int) -> None:
        """A process works for the device from now on; on the device's thread only."""
        self.pid = pid
        if self._on_start is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._on_start, self)

    def ended(self) -> None:
        """That process has ended, and somebody was told."""
        self.pid = None

    def may_restart(self, name: str) -> bool:
        """Whether the process that has died may have a successor; counts it."""
        return self.supervisor.died(name) is not None

    def kill(self) -> None:
        """End the process that works for the device; it may hang."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _close(self) -> None:
        close = getattr(self._device, "close", None)
        if close is not None:
            close()
        self.pid = None


def send(command: Command[Any], actors: Sequence[DeviceActor]) -> None:
    """Enqueue a command on all its actors.

    Nothing else can come between, so that all actors see all commands in one order: no
    two commands can wait for each other at barriers.
    """
    command.doorbells = actors[0].doorbells
    for index, actor in enumerate(actors):
        actor.thread.put(command, index)
