"""Gradients of the parameters, between the devices and the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from runtime.executor.access import Access
from runtime.executor.row_sparse import Gradient
from runtime.executor.split import is_empty
from runtime.executor.staged import AnyReplica
from runtime.executor.sums import summed
from runtime.graph.plan import Plan

Array = NDArray[Any]
Gradients = dict[str, Gradient]


class GradientAccess:
    """See the module.

    Attributes:
        names: The parameters that have a gradient, in the order of the memory.
    """

    def __init__(self, access: Access, plan: Plan) -> None:
        self._access = access
        there = {
            *plan.tensors.get("gradient", {}),
            *plan.tensors.get("gradient_rows", {}),
        }
        self.names = tuple(n for n in access.memory.parameters.tensors if n in there)

    async def total(self) -> Gradients:
        """Summed over the devices."""

        def add(parts: list[Gradients]) -> Gradients:
            return {n: summed(column) for n, column in self._columns(parts).items()}

        return await self._access.gather(self._read, add)

    async def per_device(self) -> dict[str, list[Gradient]]:
        """Those of each active device."""

        def run(replica: AnyReplica) -> Gradients:
            return {} if is_empty(replica.rows) else self._read(replica)

        return self._columns(await self._access.each("read", run, cheap=False))

    async def write_inputs(self, gradients: Mapping[str, Sequence[Array]]) -> None:
        """Set gradients of inputs to those of each active device."""
        active = [r.index for r in self._access.replicas if not r.is_idle]

        def run(replica: AnyReplica) -> None:
            if replica.index in active:
                for name, parts in gradients.items():
                    part = parts[active.index(replica.index)]
                    replica.write_input_gradient(name, part)

        await self._access.each("write gradients", run, cheap=False)

    async def zero(self) -> None:
        """Set all gradients, those of inputs too, to zero."""

        def run(replica: AnyReplica) -> None:
            replica.zero_gradients()

        await self._access.each("zero gradients", run)

    def _read(self, replica: AnyReplica) -> Gradients:
        holds, index = self._access.memory.placement.holds, replica.index
        return {n: replica.gradient(n) for n in self.names if holds(index, n)}

    def _columns(self, parts: Sequence[Gradients]) -> dict[str, list[Gradient]]:
        return {n: [part[n] for part in parts if n in part] for n in self.names}
