"""What the loops ask of a BucketingModule; see `asyncmod.module.inside`.

Next: `asyncmod.module.bucket_routing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from asyncmod.checkpoint.staging import Staging
from asyncmod.io.batch import DataDesc
from asyncmod.module.batches import Array
from asyncmod.module.bucket_routing import BucketRouting
from asyncmod.module.bucket_step import BucketStep
from asyncmod.module.buckets import Buckets
from asyncmod.module.flight import Flight
from asyncmod.module.inside import Inside, State, refuse_snapshot
from asyncmod.module.real_rows import RealRows
from asyncmod.module.step import Step
from runtime.executor.accumulation import Part
from runtime.executor.family import Dropped

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule


class BucketInside:
    """See the module: what is one for all buckets is the default's."""

    def __init__(
        self, module: BaseModule, buckets: Buckets, routing: BucketRouting
    ) -> None:
        self._module = module
        self._buckets = buckets
        self._routing = routing

    @property
    def _default(self) -> Inside:
        return self._buckets.default.module.inside

    @property
    def _current(self) -> Inside:
        return self._buckets.current.module.inside

    @property
    def value_names(self) -> Sequence[str]:
        return self._default.value_names

    @property
    def trained_names(self) -> Sequence[str]:
        return self._default.trained_names

    @property
    def state_names(self) -> Sequence[str]:
        return self._default.state_names

    @property
    def labels(self) -> Sequence[DataDesc]:
        return self._current.labels

    @property
    def output_axes(self) -> Sequence[int]:
        return self._current.output_axes

    @property
    def dropped(self) -> Sequence[Dropped]:
        return self._default.dropped

    def axes_of(self, step: Step) -> Sequence[int]:
        assert isinstance(step, BucketStep)
        return step.module.inside.output_axes

    def real_rows(self, rows: int, pad: int) -> RealRows:
        return self._current.real_rows(rows, pad)

    def check_accumulation(self) -> None:
        self._default.check_accumulation()

    def frozen(self) -> AbstractAsyncContextManager[BaseModule]:
        refuse_snapshot(self._module)

    async def dispatch_step(
        self, batch: Any, part: Part | None = None, outputs: bool = True
    ) -> Step:
        batch = await self._routing.whole(batch)
        with (await self._routing.of(batch)).in_use() as bucket:
            step = await bucket.module.inside.dispatch_step(batch, part, outputs)
            before, self._buckets.current = self._buckets.current, bucket

            def withdrawn() -> None:
                if self._buckets.current is bucket and before in self._buckets:
                    self._buckets.current = before

            return BucketStep(step, bucket.module, withdrawn)

    async def dispatch_predict(self, batch: Any) -> Step:
        batch = await self._routing.whole(batch)
        with (await self._routing.of(batch)).in_use() as bucket:
            step = await bucket.module.inside.dispatch_predict(batch)
            return BucketStep(step, bucket.module)

    async def update(self, part: Part | None) -> None:
        await self._default.update(part)

    async def synchronize(self) -> None:
        await self._default.synchronize()

    async def count_batch(self, metric: Any, flight: Flight, count_pad: bool) -> int:
        step = flight.step
        assert isinstance(step, BucketStep)
        return await step.module.inside.count_batch(metric, flight, count_pad)

    async def gather_state(self, staging: Staging, prefix: str = "") -> State:
        return await self._default.gather_state(staging, prefix)

    async def put_back_state(
        self, arrays: Mapping[str, Array], state: Mapping[str, Any], prefix: str = ""
    ) -> None:
        await self._default.put_back_state(arrays, state, prefix)
        for bucket in self._buckets:
            bucket.module.core.reseed(state["seed"])
