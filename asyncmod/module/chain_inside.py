"""What the loops ask of a SequentialModule; see `asyncmod.module.inside`.

Next: `asyncmod.module.chain`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asyncmod.checkpoint.staging import Staging
from asyncmod.io.batch import DataDesc
from asyncmod.module import counting
from asyncmod.module.batches import Array
from asyncmod.module.chain import Chain
from asyncmod.module.chain_step import ChainStep
from asyncmod.module.flight import Flight
from asyncmod.module.inside import Inside, State, refuse_snapshot
from asyncmod.module.real_rows import RealRows
from asyncmod.module.step import Step
from runtime.executor.accumulation import Part
from runtime.executor.family import Dropped

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule
    from asyncmod.module.sequential import SequentialModule


class ChainInside:
    """See the module."""

    def __init__(self, module: SequentialModule, chain: Chain) -> None:
        self._module = module
        self._chain = chain

    @property
    def _insides(self) -> list[Inside]:
        return [child.module.inside for child in self._chain.children]

    @property
    def value_names(self) -> Sequence[str]:
        return [name for inside in self._insides for name in inside.value_names]

    @property
    def trained_names(self) -> Sequence[str]:
        return [name for inside in self._insides for name in inside.trained_names]

    @property
    def state_names(self) -> Sequence[str]:
        return [name for inside in self._insides for name in inside.state_names]

    @property
    def labels(self) -> Sequence[DataDesc]:
        return self._module.label_shapes

    @property
    def output_axes(self) -> Sequence[int]:
        return self._insides[-1].output_axes

    @property
    def dropped(self) -> Sequence[Dropped]:
        return [dropped for inside in self._insides for dropped in inside.dropped]

    def axes_of(self, step: Step) -> Sequence[int]:
        return self.output_axes

    def real_rows(self, rows: int, pad: int) -> RealRows:
        return counting.real_rows(self._module, rows, pad, [rows])

    def check_accumulation(self) -> None:
        for inside in self._insides:
            inside.check_accumulation()

    def frozen(self) -> AbstractAsyncContextManager[BaseModule]:
        refuse_snapshot(self._module)

    async def dispatch_step(
        self, batch: Any, part: Part | None = None, outputs: bool = True
    ) -> Step:
        self._chain.need_optimizer("fit")
        return await self._chain.dispatch_step(batch, part, outputs)

    async def dispatch_predict(self, batch: Any) -> Step:
        return await self._chain.dispatch_predict(batch)

    async def update(self, part: Part | None) -> None:
        self._chain.need_optimizer("update")
        async with self._chain.running:
            self._chain.check_whole("update")
            await self._chain.update(part)

    async def synchronize(self) -> None:
        for inside in self._insides:
            await inside.synchronize()

    async def count_batch(self, metric: Any, flight: Flight, count_pad: bool) -> int:
        step = flight.step
        assert isinstance(step, ChainStep)
        for position, child in enumerate(self._chain.children):
            if child.take_labels and flight.has_outputs:
                own = ChainStep.of({position: step.by_position[position]})
                part = replace(flight, step=own)
                await child.module.inside.count_batch(metric, part, count_pad)
        return counting.rows_of(self._module, flight.batch)

    async def gather_state(self, staging: Staging, prefix: str = "") -> State:
        return {
            str(i): await inside.gather_state(staging, f"{prefix}{i}/")
            for i, inside in enumerate(self._insides)
        }

    async def put_back_state(
        self, arrays: Mapping[str, Array], state: Mapping[str, Any], prefix: str = ""
    ) -> None:
        for i, inside in enumerate(self._insides):
            await inside.put_back_state(arrays, state[str(i)], f"{prefix}{i}/")
