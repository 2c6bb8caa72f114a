"""The groups over one memory, which lose a device together and go on without it.

Where modules want it (`on_worker_death="drop"`), the death of a worker process makes
the call under way none on any device, as with "fail". Then all groups of the family are
formed anew over the other devices, with everything that the old ones held, and the call
is done again, before any later one: steps that were dispatched, in their order.

Next: `runtime.executor.dropping` for how they are formed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import trio

from runtime.context import DeviceId
from runtime.errors import WorkerDied
from runtime.executor.calls import Superseded
from runtime.executor.pending import Pending

if TYPE_CHECKING:
    from runtime.executor.group import ExecutorGroup

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(eq=False)
class Followed:
    """Dispatched work that is done again if it is lost.

    Attributes:
        pending: The work.
        again: Enqueues it once more.
        generation: The family's when it was last enqueued.
    """

    pending: Pending
    again: Callable[[], None]
    generation: int


@dataclass(frozen=True, eq=False)
class Dropped:
    """A device that a family goes on without.

    Attributes:
        device: Which.
        step: The first step without it; counted from 0, as training forwards.
        died: What has become of its worker.
    """

    device: DeviceId
    step: int
    died: WorkerDied


class Family:
    """See the module; used on the Trio thread.

    Attributes:
        drops: Whether a device may have to be dropped.
        dropped: Those that were, in order.
        generation: How often that happened.
        groups: The groups; they have one memory.
        updates: How often parameters have changed.
    """

    def __init__(self, drops: bool) -> None:
        self.drops = drops
        self.dropped: tuple[Dropped, ...] = ()
        self.generation = 0
        self.groups: list[ExecutorGroup] = []
        self.updates = 0
        self._changing = trio.Lock()
        self._steps: list[Followed] = []
        self._under_way = 0
        self._settled: trio.Event | None = None

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, and again over the rest if a device is dropped meanwhile.

        Raises:
            WorkerDied: the last device has died, or one that is not to be dropped.
        """
        while True:
            generation = self.generation
            try:
                return await work()
            except Superseded:
                pass
            except WorkerDied as died:
                if not self.drops:
                    raise
                await self._drop(died, generation)

    @asynccontextmanager
    async def unchanged(self) -> AsyncIterator[None]:
        """Nothing is dropped meanwhile: for what adds to the family."""
        if not self.drops:
            yield
            return
        async with self._changing:
            yield

    def follow(
        self, pending: Pending, again: Callable[[], None], *, in_order: bool = False
    ) -> None:
        """Do dispatched work again if it is lost.

        Args:
            pending: The work.
            again: Enqueues it once more.
            in_order: Whether it comes before everything that is dispatched later.
        """
        if not self.drops:
            return
        followed = Followed(pending, again, self.generation)
        pending.redo = partial(self._redo, followed)
        if in_order:
            self._steps = [step for step in self._steps if not step.pending.over]
            self._steps.append(followed)

    def sent(self) -> None:
        """A step was enqueued."""
        self._under_way += 1

    def ended(self) -> None:
        """A step has ended, or was withdrawn, and has been counted so."""
        self._under_way -= 1
        if self._under_way == 0 and self._settled is not None:
            self._settled.set()

    async def settle(self) -> None:
        """Wait until no step is under way."""
        while self._under_way:
            self._settled = trio.Event()
            await self._settled.wait()

    def change(self, dropped: Sequence[Dropped]) -> None:
        """All groups stand over the rest now: enqueue the steps that were lost."""
        self.dropped += tuple(dropped)
        self.generation += 1
        for step in self._steps:
            if step.pending.lost:
                self._enqueue(step)

    async def _redo(self, followed: Followed, died: WorkerDied) -> None:
        generation = followed.generation
        await self._drop(died, generation)
        if followed.generation == generation:
            self._enqueue(followed)

    def _enqueue(self, followed: Followed) -> None:
        followed.generation = self.generation
        try:
            followed.again()
        except Exception as error:
            followed.pending.fail(error)

    async def _drop(self, died: WorkerDied, generation: int) -> None:
        """Go on without what was lost in a generation, unless that was done.

        Raises:
            WorkerDied: nothing is to be dropped, or nothing would be left.
        """
        from runtime.executor.dropping import drop

        async with self._changing:
            if self.generation == generation:
                await drop(self, died)


def over_the_rest(
    method: Callable[Concatenate[ExecutorGroup, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[ExecutorGroup, P], Coroutine[Any, Any, T]]:
    """A method of a group that is done again if a device is dropped meanwhile."""

    @wraps(method)
    def call(
        group: ExecutorGroup, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        family = group.family
        if not family.drops:
            return method(group, *args, **kwargs)
        return family.call(partial(method, group, *args, **kwargs))

    return call
