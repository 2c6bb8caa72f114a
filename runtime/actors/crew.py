"""Several device actors addressed as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from runtime.actors.actor import DeviceActor, send
from runtime.actors.command import Command

T = TypeVar("T")


class Crew:
    """The actors of a group, in order.

    Attributes:
        actors: One per device.
        names: The devices' names.
    """

    def __init__(self, actors: Sequence[DeviceActor]) -> None:
        self.actors = tuple(actors)
        self.names = tuple(str(actor.device_id) for actor in actors)

    async def run(
        self,
        label: str,
        jobs: Sequence[Callable[[], T]],
        *,
        together: bool = False,
        begun: bool = False,
    ) -> list[T]:
        """Run one job per actor, and return what they return.

        With `together` no actor goes on before all have ended their jobs. What counts
        as `begun` from the start cannot be withdrawn.

        Raises what the job of the lowest index raised, with the others' errors as
        notes. Cancellation withdraws the command, or waits for its end if it has begun.
        """
        command = Command(label, jobs, self.names, together=together)
        if begun:
            command.begin()
        send(command, self.actors)
        await command.wait()
        return command.results()

    async def run_first(self, label: str, job: Callable[[], T]) -> T:
        """Run a job on the first actor only."""
        command = Command(label, [job], self.names[:1])
        send(command, self.actors[:1])
        await command.wait()
        return command.results()[0]

    async def finish(self, label: str, jobs: Sequence[Callable[[], object]]) -> None:
        """Run jobs that cannot be withdrawn, such as freeing memory.

        Cancellation ends the waiting only; the jobs run all the same.
        """
        command: Command[object] = Command(label, jobs, self.names)
        command.begin()
        send(command, self.actors)
        await command.wait(abandon=True)
        command.results()


async def shielded(
    label: str, crew: Crew, jobs: Sequence[Callable[[], object]]
) -> None:
    """`crew.finish` to its end, whatever is cancelled around it."""
    with trio.CancelScope(shield=True):
        await crew.finish(label, jobs)
