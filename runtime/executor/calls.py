"""Where a call of a group runs: on the device threads, or here if that is cheaper.

A trip to a device thread and back costs some 60 us. Work that is shorter than that is
run on the Trio thread, as long as the devices' threads have nothing to do; then the
call looks for a cancellation, and other tasks get their turn once per millisecond.
Somewhat longer work is run there too if all other tasks wait for something: they get
their turn before it, and go on beside a device thread if they have something to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TypeVar

from runtime.actors import turns
from runtime.actors.crew import Crew
from runtime.actors.runtime import Runtime
from runtime.errors import ClosedError

T = TypeVar("T")

_is_idle = attrgetter("thread.idle")


class Superseded(Exception):
    """Other executors have taken the place of these; the call is to go to them."""


class Calls:
    """See the module.

    Attributes:
        crew: The devices' actors.
        runtime: Their owner.
        closed: Whether the group was closed.
        superseded: Whether other executors have taken the place of these.

    With `together` given here, no device goes on before all have ended their jobs, in
    any call: they use memory of each other's.
    """

    def __init__(self, runtime: Runtime, crew: Crew, together: bool = False) -> None:
        self.crew = crew
        self._together = together
        self.closed = False
        self.superseded = False
        self.runtime = runtime
        self._wanted = os.environ.get("ASYNCMOD_INLINE", "1") != "0"

    @property
    def can_inline(self) -> bool:
        """Whether work may run on the Trio thread now."""
        return self._wanted and all(map(_is_idle, self.crew.actors))

    def check_open(self) -> None:
        """Raise ClosedError if the group or its runtime was closed, or Superseded."""
        if self.superseded:
            raise Superseded
        if self.closed:
            raise ClosedError("the executors are closed: their module has ended")
        self.runtime.check_open()

    async def run(
        self,
        label: str,
        jobs: Sequence[Callable[[], T]],
        *,
        cheap: bool,
        short: bool = False,
        together: bool = False,
        at_once: Callable[[], None] | None = None,
    ) -> list[T]:
        """Run one job per device and return their results.

        Args:
            label: What they do.
            jobs: One per device.
            cheap: Whether one device's job may run on the Trio thread.
            short: Whether it may run there if no other task is seen to be able to run.
            together: Whether no device goes on before all have ended their jobs.
            at_once: Called on the Trio thread as the jobs are enqueued: nothing else
                is in between. They cannot be withdrawn then. If it raises, they are
                not run.
        """
        inline = cheap and len(jobs) == 1
        if inline:
            await turns.checkpoint()
        elif short and len(jobs) == 1 and turns.alone():
            await turns.give_way()
            inline = turns.alone()
        self.check_open()
        if inline:
            if self.can_inline:
                if at_once is not None:
                    at_once()
                try:
                    return [jobs[0]()]
                except BaseException as error:
                    error.add_note(f"on {self.crew.names[0]}")
                    raise
        together = together or self._together
        if at_once is not None:
            at_once()
        begun = at_once is not None
        return await self.crew.run(label, jobs, together=together, begun=begun)

    async def close(self, jobs: Sequence[Callable[[], object]]) -> None:
        """Run the last jobs, which free everything; cannot be withdrawn."""
        self.closed = True
        if not self.runtime.stopped:
            await self.crew.finish("close", jobs)
