"""What the loops ask of a Module; see `asyncmod.module.inside`.

Next: `asyncmod.module.running`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from asyncmod.checkpoint.staging import Staging
from asyncmod.errors import ArgumentError
from asyncmod.io.batch import DataDesc
from asyncmod.module import counting, running, training_state
from asyncmod.module.batches import Array
from asyncmod.module.core import Core
from asyncmod.module.flight import Flight
from asyncmod.module.frozen import frozen
from asyncmod.module.inside import State
from asyncmod.module.real_rows import RealRows
from asyncmod.module.step import Step
from runtime.executor.accumulation import Part
from runtime.executor.family import Dropped
from runtime.executor.split import split

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule
    from asyncmod.module.module import Module


class ModuleInside:
    """See the module; `twin` makes another Module of the same definition."""

    def __init__(self, core: Core, twin: Callable[[], Module]) -> None:
        self._core = core
        self._twin = twin
        # Those of the last batch and the labels then bound: mostly they come again.
        self._last_rows: tuple[Any, RealRows] | None = None

    @property
    def value_names(self) -> Sequence[str]:
        return self._core.definition.value_names

    @property
    def trained_names(self) -> Sequence[str]:
        return self._core.definition.trained_names

    @property
    def state_names(self) -> Sequence[str]:
        return self._core.definition.state_names

    @property
    def labels(self) -> Sequence[DataDesc]:
        """As bound for the last batch, whether for training or not."""
        return self._core.need_executors("update_metric").current.labels

    @property
    def output_axes(self) -> Sequence[int]:
        return self._core.need_executors("update_metric").template.output_axes

    @property
    def dropped(self) -> Sequence[Dropped]:
        executors = self._core.executors
        return () if executors is None else executors.first.group.family.dropped

    def axes_of(self, step: Step) -> Sequence[int]:
        return self.output_axes

    def real_rows(self, rows: int, pad: int) -> RealRows:
        labels, workload = self.labels, self._core.workload
        if self._last_rows is not None:
            (of, shared), real = self._last_rows
            same = of is labels and shared is workload
            if same and real.rows == rows and real.pad == pad:
                return real
        slices = split(rows, workload)
        counts = [s.stop - s.start for s in slices]
        real = counting.real_rows(self._core.module, rows, pad, counts)
        self._last_rows = (labels, workload), real
        return real

    def check_accumulation(self) -> None:
        gradients = self._core.need_executors("fit").template.gradients
        added = [n for n in self.trained_names if gradients[n] == "add"]
        if added:
            raise ArgumentError(
                f"`accumulate` adds gradients up by itself, and `{added[0]}` is bound "
                "with grad_req='add', which would count them again: bind with "
                "grad_req='write'"
            )

    def frozen(self) -> AbstractAsyncContextManager[BaseModule]:
        return frozen(self._core.module, self._twin())

    async def dispatch_step(
        self, batch: Any, part: Part | None = None, outputs: bool = True
    ) -> Step:
        return await running.dispatch_step(self._core, batch, part, outputs)

    async def dispatch_predict(self, batch: Any) -> Step:
        return await running.dispatch_predict(self._core, batch)

    async def update(self, part: Part | None) -> None:
        await running.update(self._core, part)

    async def synchronize(self) -> None:
        await running.synchronize(self._core)

    async def count_batch(self, metric: Any, flight: Flight, count_pad: bool) -> int:
        return await counting.count_batch(self._core.module, metric, flight, count_pad)

    async def gather_state(self, staging: Staging, prefix: str = "") -> State:
        return await training_state.gather(self._core, staging, prefix)

    async def put_back_state(
        self, arrays: Mapping[str, Array], state: Mapping[str, Any], prefix: str = ""
    ) -> None:
        await training_state.put_back(self._core, arrays, state, prefix)
