"""A device actor: one device, alive on its own thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from runtime.actors.command import Command
from runtime.actors.device_thread import DeviceThread, Observer
from runtime.actors.doorbell import Doorbells
from runtime.context import DeviceId


class DeviceActor:
    """The thread of a device, and whatever object drives the device.

    Attributes:
        device_id: Which device.
        thread: Its thread.
        doorbells: What tasks wait with for its commands.
    """

    def __init__(
        self,
        device_id: DeviceId,
        doorbells: Doorbells,
        observe: Observer | None = None,
        lane: int = 0,
    ) -> None:
        self.device_id = device_id
        self.doorbells = doorbells
        name = f"{device_id}, lane {lane}" if lane else str(device_id)
        self.thread = DeviceThread(name, observe)
        self._device: Any = None

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running on the device."""
        return self.thread.idle

    def device(self, make: Callable[[DeviceId], Any]) -> Any:
        """The device, made by the first call; on the device's thread only."""
        if self._device is None:
            self._device = make(self.device_id)
        return self._device


def send(command: Command[Any], actors: Sequence[DeviceActor]) -> None:
    """Enqueue a command on all its actors.

    Nothing else can come between, so that all actors see all commands in one order: no
    two commands can wait for each other at barriers.
    """
    command.doorbells = actors[0].doorbells
    for index, actor in enumerate(actors):
        actor.thread.put(command, index)
