"""What the loops ask of a module that says no more than its face.

Its steps are complete when they have begun, and what it learns it must say itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncmod.checkpoint.staging import Staging
from asyncmod.errors import UnsupportedError
from asyncmod.io.batch import DataDesc
from asyncmod.module import counting
from asyncmod.module.batches import Array
from asyncmod.module.flight import Flight
from asyncmod.module.inside import State, refuse_snapshot
from asyncmod.module.real_rows import RealRows
from asyncmod.module.step import CompletedStep, Step
from runtime.executor.accumulation import Part
from runtime.executor.family import Dropped

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule

Begin = Callable[[Any], Awaitable[Step]]


@dataclass
class PlainInside:
    """See the module, and `asyncmod.module.inside.Inside`.

    Attributes:
        module: Whose it is.
        gather: Its own `gather_state`.
        put_back: Its own `put_back_state`.
        begin_step, begin_predict: What it does for a batch; its face's `step` and
            `forward` unless given.
        counts: Whether metrics count its outputs.
        accumulates: Whether gradients may be added up before it updates.
    """

    module: BaseModule
    gather: Callable[[Staging, str], Awaitable[State]]
    put_back: Callable[[Mapping[str, Array], Mapping[str, Any], str], Awaitable[None]]
    begin_step: Begin | None = None
    begin_predict: Begin | None = None
    counts: Callable[[], bool] = lambda: True
    accumulates: bool = False

    @property
    def value_names(self) -> Sequence[str]:
        return ()

    @property
    def trained_names(self) -> Sequence[str]:
        return ()

    @property
    def state_names(self) -> Sequence[str]:
        return ()

    @property
    def labels(self) -> Sequence[DataDesc]:
        return self.module.label_shapes

    @property
    def output_axes(self) -> Sequence[int]:
        return [0] * len(self.module.output_names)

    @property
    def dropped(self) -> Sequence[Dropped]:
        return ()

    def axes_of(self, step: Step) -> Sequence[int]:
        return self.output_axes

    def real_rows(self, rows: int, pad: int) -> RealRows:
        return counting.real_rows(self.module, rows, pad, [rows])

    def check_accumulation(self) -> None:
        if not self.accumulates:
            raise UnsupportedError(
                f"`accumulate` must be 1: {type(self.module).__name__} has its own "
                "`step`, which updates after every batch"
            )

    def frozen(self) -> AbstractAsyncContextManager[BaseModule]:
        refuse_snapshot(self.module)

    async def dispatch_step(
        self, batch: Any, part: Part | None = None, outputs: bool = True
    ) -> Step:
        if self.begin_step is not None:
            return await self.begin_step(batch)
        await self.module.step(batch)
        return CompletedStep(self.module.get_outputs)

    async def dispatch_predict(self, batch: Any) -> Step:
        if self.begin_predict is not None:
            return await self.begin_predict(batch)
        await self.module.forward(batch, is_train=False)
        return CompletedStep(self.module.get_outputs)

    async def update(self, part: Part | None) -> None:
        await self.module.update()

    async def synchronize(self) -> None:
        """There is one replica."""

    async def count_batch(self, metric: Any, flight: Flight, count_pad: bool) -> int:
        if not self.counts():
            return counting.rows_of(self.module, flight.batch)
        return await counting.count_batch(self.module, metric, flight, count_pad)

    async def gather_state(self, staging: Staging, prefix: str = "") -> State:
        return await self.gather(staging, prefix)

    async def put_back_state(
        self, arrays: Mapping[str, Array], state: Mapping[str, Any], prefix: str = ""
    ) -> None:
        await self.put_back(arrays, state, prefix)
