"""What reads and writes on the devices go through: one job for each member.

Everything is read, merged and written on the device threads; results are the caller's.

Next: `runtime.executor.calls`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from numpy.typing import NDArray

from runtime.actors.barrier import Barrier
from runtime.executor.binding import Binding
from runtime.executor.calls import Calls
from runtime.executor.dispatch import COPY_LIMIT
from runtime.executor.merging import Merge, Place
from runtime.executor.staged import AnyReplica

Array = NDArray[Any]
T = TypeVar("T")
R = TypeVar("R")


class Access:
    """See the module.

    Attributes:
        memory: What outlives the binding.
        replicas: One per member.
    """

    def __init__(self, calls: Calls, binding: Binding) -> None:
        self.memory = binding.memory
        self.replicas = binding.replicas
        self._calls = calls
        layouts = (self.memory.parameters, self.memory.auxiliaries)
        self._inline = self.memory.storage[0].inline
        self._cheap = self._is_cheap(sum(layout.nbytes for layout in layouts))

    async def each(
        self,
        label: str,
        job: Callable[[AnyReplica], T],
        *,
        cheap: bool = True,
        together: bool = False,
        at_once: Callable[[], None] | None = None,
    ) -> list[T]:
        """Run a job on every member.

        Args:
            label: What it does.
            job: Called with the replica.
            cheap: Whether it moves no more than all parameters; where these are few
                it may run on the Trio thread then.
            together: See `Calls.run`.
            at_once: See `Calls.run`.
        """
        jobs = [partial(job, replica) for replica in self.replicas]
        cheap = cheap and self._cheap
        return await self._calls.run(
            label, jobs, cheap=cheap, together=together, at_once=at_once
        )

    async def gather(
        self, read: Callable[[AnyReplica], T], combine: Callable[[list[T]], R]
    ) -> R:
        """Read on every member; the first one's thread combines what all read."""
        parts: list[Any] = [None] * len(self.replicas)
        all_read = Barrier(len(self.replicas))

        def run(replica: AnyReplica) -> R | None:
            try:
                parts[replica.index] = read(replica)
            except BaseException:
                all_read.fail()
                raise
            if all_read.wait() and replica.index == 0:
                return combine(parts)
            return None

        combined = (await self.each("read", run))[0]
        assert combined is not None
        return combined

    async def merged(
        self, merge: Merge, read: Callable[[AnyReplica, str, Place], Array]
    ) -> list[Array]:
        """Tensors put together from the parts that every device reads."""
        merged = merge.allocate()
        jobs = [
            partial(merge.fill, replica.index, merged, partial(read, replica))
            for replica in self.replicas
        ]
        await self._calls.run("read", jobs, cheap=self._is_cheap(merge.nbytes))
        return merged

    async def parts(
        self, names: Sequence[str], read: Callable[[AnyReplica, str], Array]
    ) -> list[list[Array]]:
        """The active devices' parts of tensors: [name][device]."""

        def run(replica: AnyReplica) -> list[Array]:
            return [] if replica.is_idle else [read(replica, name) for name in names]

        parts = await self.each("read", run, cheap=False)
        active = [
            part for r, part in zip(self.replicas, parts, strict=True) if not r.is_idle
        ]
        return [[part[k] for part in active] for k in range(len(names))]

    def by_share(self, parts: Sequence[Mapping[str, T]]) -> list[dict[str, T]]:
        """What the members of each share of the batch have, put together."""
        shares: dict[int, dict[str, T]] = {}
        for member, part in zip(self.memory.placement.members, parts, strict=True):
            shares.setdefault(member.share, {}).update(part)
        return list(shares.values())

    def _is_cheap(self, nbytes: int) -> bool:
        """Whether so much may be copied on the Trio thread."""
        return self._inline and nbytes <= COPY_LIMIT
