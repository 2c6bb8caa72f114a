"""The training loop over epochs: steps, callbacks, validation, a row of the history.

Next: `asyncmod.module.epoch`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from asyncmod.errors import StopTraining
from asyncmod.history import History
from asyncmod.io.iterator import BatchIterator
from asyncmod.module import callbacks as callback_calls
from asyncmod.module.callbacks import Callback
from asyncmod.module.checkpoints import Checkpoints, NoCheckpoints, Position
from asyncmod.module.epoch import Epoch, EpochResult
from asyncmod.module.metrics import Metric
from asyncmod.progress import Display, Silent
from runtime.context import DeviceId
from runtime.executor.family import Dropped

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule
    from asyncmod.monitor import Monitor

Validate = Callable[[int], Awaitable[object]]


@dataclass
class Training:
    """What stays the same over a whole `fit`.

    Attributes:
        module: Bound, initialized, with an optimizer.
        batches: The training data.
        metric: The training metric.
        batch_end: Called after each batch.
        epoch_end: Called after each epoch, before validation.
        validate: Scores the validation data at the end of an epoch.
        validation_metric: What it then finds in this metric.
        in_flight: Steps under way at once, 1 or 2.
        accumulate: Batches per update.
        count_pad: Whether padded rows count in the metric.
        sparse_row_id_fn: Handed to `prepare`.
        monitor: Told where each batch begins and ends.
        checkpoints: Saves and resumes.
        known: Entries of `BatchEndParam.locals` that never change.
        display: Told of every batch.
        history: Collects the rows; what `run` returns.
        stopped: What a callback has raised to end the training; None until then.
    """

    module: BaseModule
    batches: BatchIterator
    metric: Metric
    batch_end: tuple[Callback, ...]
    epoch_end: tuple[Callback, ...]
    validate: Validate | None
    validation_metric: Metric
    in_flight: int
    accumulate: int
    count_pad: bool
    sparse_row_id_fn: Any
    monitor: Monitor | None
    known: dict[str, Any]
    checkpoints: Checkpoints = field(default_factory=NoCheckpoints)
    display: Display = field(default_factory=Silent)
    history: History = field(default_factory=History)
    stopped: StopTraining | None = None

    def __post_init__(self) -> None:
        # What has died before this training is no event of it.
        self._known_deaths = {_death(d) for d in self.module.inside.dropped}

    async def run(self, begin: Position, num_epoch: int) -> History:
        """Train from a position up to the epoch `num_epoch`."""
        logger = self.module.logger
        if begin.stopped_by is not None:
            self.history.stopped_by = begin.stopped_by
            return self.history
        position = begin
        for epoch in range(begin.epoch, num_epoch):
            result = await Epoch(self, position).run()
            for name, value in result.train:
                logger.info("Epoch[%d] Train-%s=%f", epoch, name, value)
            logger.info("Epoch[%d] Time cost=%.3f", epoch, result.spent.seconds)
            try:
                await self._end_epoch(epoch)
                validation = await self._validate(epoch)
            finally:
                self.note_dropped(epoch, result.batches)
            for name, value in validation:
                logger.info("Epoch[%d] Validation-%s=%f", epoch, name, value)
            self._record(epoch, result, validation)
            await self.batches.reset()
            step = position.step + result.batches - position.batch
            position = Position(epoch + 1, 0, step, self.history.stopped_by)
            await self.checkpoints.end_epoch(position, validation or result.train)
            if self.stopped is not None:
                break
        await self.checkpoints.end(position)
        return self.history

    def note_dropped(self, epoch: int, nbatch: int) -> None:
        """Record devices that were dropped since the last call, before this batch.

        Modules in sequence drop a device one after the other: it is told once.
        """
        for dropped in self.module.inside.dropped:
            if _death(dropped) in self._known_deaths:
                continue
            self._known_deaths.add(_death(dropped))
            self.history.add_event(
                "drop",
                epoch=epoch,
                nbatch=nbatch,
                step=dropped.step,
                device=str(dropped.device),
                reason=str(dropped.died),
            )

    async def _end_epoch(self, epoch: int) -> None:
        """Bring the replicas together, then call the callbacks of the epoch's end."""
        await self.module.inside.synchronize()
        if not self.epoch_end:
            return
        arguments, auxiliaries = await self.module.get_params()
        try:
            await callback_calls.call(
                self.epoch_end, epoch, self.module.symbol, arguments, auxiliaries
            )
        except StopTraining as stop:
            self.stopped = stop

    async def _validate(self, epoch: int) -> list[tuple[str, float]]:
        """Score the validation data, as far as callbacks let it; nothing if stopped."""
        if self.validate is None or self.stopped is not None:
            return []
        try:
            await self.validate(epoch)
        except StopTraining as stop:
            self.stopped = stop
        return self.validation_metric.get_name_value()

    def _record(
        self,
        epoch: int,
        result: EpochResult,
        validation: Sequence[tuple[str, float]],
    ) -> None:
        timing = asdict(result.spent)
        samples, seconds = timing.pop("samples"), timing.pop("seconds")
        self.history.add_epoch(
            epoch=epoch,
            **{f"train-{name}": value for name, value in result.train},
            **{f"validation-{name}": value for name, value in validation},
            batches=result.batches,
            samples=samples,
            seconds=seconds,
            timing=timing,
        )
        for part, spent in timing.items():
            self.history.timing[part] = self.history.timing.get(part, 0.0) + spent
        if self.stopped is not None:
            self.history.stopped_by = str(self.stopped) or type(self.stopped).__name__


def _death(dropped: Dropped) -> tuple[DeviceId, int]:
    return dropped.device, dropped.died.pid
