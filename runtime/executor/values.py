"""Values of parameters and auxiliary states, between the devices and the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from runtime.actors.barrier import Barrier
from runtime.executor.access import Access
from runtime.executor.staged import AnyReplica
from runtime.executor.sums import mean

Array = NDArray[Any]
Arrays = dict[str, Array]


class Values:
    """See the module; what is written was checked."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._memory = access.memory

    async def read(
        self, names: Sequence[str], auxiliary_names: Sequence[str]
    ) -> tuple[Arrays, Arrays]:
        """The first device's parameters, the mean of the auxiliary states."""
        placement = self._memory.placement
        trained = [i for i, has_rows in enumerate(self._memory.trained) if has_rows]

        def read(replica: AnyReplica) -> tuple[Arrays, Arrays]:
            storage, index = replica.storage, replica.index
            own = [n for n in names if placement.holder(n) == index]
            kept = [n for n in auxiliary_names if placement.holds(index, n)]
            return (
                {n: storage.read("parameter", n) for n in own},
                {n: storage.read("auxiliary", n) for n in kept},
            )

        def combine(parts: list[tuple[Arrays, Arrays]]) -> tuple[Arrays, Arrays]:
            found = {n: array for own, _ in parts for n, array in own.items()}
            states = {}
            for name in auxiliary_names:
                of = [i for i in trained if name in parts[i][1]]
                of = of or [placement.holder(name)]
                states[name] = mean([parts[i][1][name] for i in of])
            return {name: found[name] for name in names}, states

        return await self._access.gather(read, combine)

    async def read_share_auxiliaries(self, names: Sequence[str]) -> list[Arrays]:
        """The auxiliary states of each share of the batch."""
        placement = self._memory.placement

        def read(replica: AnyReplica) -> Arrays:
            kept = [n for n in names if placement.holds(replica.index, n)]
            return {n: replica.storage.read("auxiliary", n) for n in kept}

        return self._access.by_share(await self._access.each("read", read))

    async def write(
        self, parameters: Mapping[str, Array], auxiliaries: Mapping[str, Array]
    ) -> None:
        """Set parameters while no device reads them, auxiliary states everywhere."""
        memory = self._memory
        arrived = Barrier(len(self._access.replicas))

        def run(replica: AnyReplica) -> None:
            arrived.wait()
            index = replica.index
            if memory.is_leader(index):
                here = memory.layouts(index)[0].tensors
                for name in here.keys() & parameters.keys():
                    replica.storage.write("parameter", name, parameters[name])
            for name, value in auxiliaries.items():
                if memory.placement.holds(index, name):
                    replica.storage.write("auxiliary", name, value)
            if parameters.keys() >= memory.parameters.tensors.keys():
                memory.torn = None

        await self._access.each("write parameters", run, together=True)

    async def write_share_auxiliaries(
        self, values: Sequence[Mapping[str, Array]]
    ) -> None:
        """Set the auxiliary states of each share of the batch."""
        placement = self._memory.placement

        def run(replica: AnyReplica) -> None:
            index = replica.index
            for name, value in values[placement.members[index].share].items():
                if placement.holds(index, name):
                    replica.storage.write("auxiliary", name, value)

        await self._access.each("write states", run)
