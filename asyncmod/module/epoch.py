"""One epoch: dispatch a step, then metric and callbacks of the step before.

With two steps in flight the devices compute step n+1 while metric n and its callbacks
run; with one, everything happens in MXNet's order. Follow one batch: `_fetch` takes it
from the iterator, `dispatch_step` of the module's inside splits it over the devices,
`_finish` counts it and calls the callbacks.

Next: `asyncmod.module.module_inside` for what a step does, then
`asyncmod.module.counting` and `asyncmod.module.callbacks` for what comes after it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

from asyncmod.errors import ArgumentError, StopTraining
from asyncmod.io.batch import DataBatch
from asyncmod.module import callbacks as callback_calls
from asyncmod.module.callbacks import BatchEndParam
from asyncmod.module.checkpoints import NEVER, Position, Spent
from asyncmod.module.flight import (
    Flight,
    Flights,
    at_batch,
    keep_labels,
    next_batch,
    note_batch,
    padding,
)
from runtime.executor.accumulation import Accumulation, Part

if TYPE_CHECKING:
    from asyncmod.module.fit_loop import Training


@dataclass
class EpochResult:
    """What one epoch gave.

    Attributes:
        train: Name and value of the training metric at its end.
        batches: Batches of the epoch, those before a resume included.
        spent: Where time went, and real samples.
    """

    train: list[tuple[str, float]]
    batches: int
    spent: Spent


class Epoch:
    """One epoch of training."""

    def __init__(self, training: Training, begin: Position) -> None:
        self._training = training
        self._module = training.module
        self._epoch = begin.epoch
        self._begin = begin
        self._flights = Flights()
        self._sum = Accumulation(training.accumulate)
        self._spent = replace(begin.spent)
        self._began = perf_counter() - begin.spent.seconds
        self._values: list[tuple[str, float]] | None = None
        self._has_listeners = bool(training.monitor or training.batch_end)

    async def run(self) -> EpochResult:
        """Train on every batch.

        An error of the iterator, or a batch that does not fit, is raised after the
        steps before it have been counted and their callbacks called. Whatever ends the
        epoch early, no step is left behind: those that have not begun are withdrawn,
        the others run to their end.

        Raises:
            ArgumentError: the iterator gave no batch.
        """
        training = self._training
        training.metric.reset()
        metric_state = training.checkpoints.metric_state()
        if metric_state is not None:
            training.metric.set_state(metric_state)
        training.display.begin_epoch(self._epoch, self._begin.batch)
        nbatch = self._begin.batch
        try:
            batch = await self._fetch(nbatch)
            while batch is not None:
                monitored = await self._monitor(batch)
                if training.stopped is not None:
                    break
                await self._dispatch(nbatch, batch)
                nbatch += 1
                if self._is_save_due(nbatch):
                    await self._save(nbatch)
                alone = monitored or training.in_flight == 1
                batch = await (self._in_order if alone else self._overlapped)(nbatch)
            await self._update_rest()
            await self._finish_all()
        finally:
            await self._flights.settle()
            if training.monitor is not None:
                training.monitor.toc()  # of a step that failed
        if nbatch == 0:
            raise ArgumentError(
                f"`train_data` gave no batch in epoch {self._epoch}: it is empty, or "
                "at its end and needs `await train_data.reset()`"
            )
        if self._values is None:  # stopped early
            self._values = self._training.metric.get_global_name_value()
        return EpochResult(self._values, nbatch, self._spent_so_far())

    async def _monitor(self, batch: DataBatch) -> bool:
        """Begin a batch for the monitor, and say whether it will look at it.

        Such a batch has the devices for itself, so that the monitor sees nothing else.
        """
        monitor = self._training.monitor
        if monitor is None:
            return False
        if monitor.is_due:
            while self._flights:
                await self._finish(batch)
        monitor.tic()
        return monitor.activated

    async def _overlapped(self, nbatch: int) -> DataBatch | None:
        """The next batch; the step before the last dispatched one is finished first."""
        if len(self._flights) >= self._training.in_flight:
            await self._finish(self._flights[-1].batch)
        if self._flights:
            await self._flights[-1].step.copied()
        return await self._fetch(nbatch)

    async def _in_order(self, nbatch: int) -> DataBatch | None:
        """The next batch; MXNet's order: metric, fetch, callbacks."""
        if self._flights:
            await self._count(self._flights[0])
        batch = await self._fetch(nbatch)
        if batch is not None and self._flights:
            await self._notify(self._flights.popleft(), batch)
        return batch if self._training.stopped is None else None

    async def _fetch(self, nbatch: int) -> DataBatch | None:
        """The next batch, prepared unless it is the first; None at the end."""
        if self._training.stopped is not None:
            return None
        began = perf_counter()
        try:
            with self._interruptible() as was_interrupted:
                batch = await next_batch(self._training.batches)
            if was_interrupted():
                await self._save(nbatch)
            if nbatch > 0:
                await self._module.prepare(batch, self._training.sparse_row_id_fn)
        except StopAsyncIteration:
            return None
        except Exception:
            await self._finish_all()
            raise
        finally:
            self._spent.data += perf_counter() - began
        return batch

    async def _dispatch(self, nbatch: int, batch: DataBatch) -> None:
        read = not self._training.metric.is_empty
        labels = await keep_labels(batch) if read else []
        part = self._next_part()
        try:
            step = await self._module.inside.dispatch_step(batch, part, read)
        except Exception as error:
            note_batch(error, nbatch, self._epoch)
            await self._finish_all()
            raise
        self._values = None
        self._flights.append(Flight(nbatch, batch, labels, padding(batch), step, read))

    def _next_part(self) -> Part | None:
        """What the next step does for an update by several batches."""
        if self._training.accumulate == 1:
            return None
        if not self._sum.waits:
            self._sum = Accumulation(self._training.accumulate)
        return self._sum.next()

    async def _update_rest(self) -> None:
        """Update by the batches that did not make a whole update, if there are any."""
        if not self._sum.waits:
            return
        for flight in self._flights:
            await at_batch(flight.step.wait(), flight.nbatch, self._epoch)
        await self._module.inside.update(self._sum.rest())

    def _is_save_due(self, nbatch: int) -> bool:
        """Whether to save after so many batches, which must be between two updates."""
        step = self._begin.step + nbatch - self._begin.batch
        return self._training.checkpoints.is_due(step) and not self._sum.waits

    async def _save(self, nbatch: int) -> None:
        """Save, with nothing in flight."""
        await self._finish_all()
        step = self._begin.step + nbatch - self._begin.batch
        spent = self._spent_so_far()
        position = Position(self._epoch, nbatch, step, spent=spent)
        await self._training.checkpoints.save(position)

    def _spent_so_far(self) -> Spent:
        return replace(self._spent, seconds=perf_counter() - self._began)

    def _interruptible(self) -> AbstractContextManager[Callable[[], bool]]:
        """What waits for data may be interrupted, unless an update is half done."""
        if self._sum.waits:
            return NEVER
        return self._training.checkpoints.interruptible()

    async def _finish_all(self) -> None:
        while self._flights:
            await self._finish(None)

    async def _finish(self, next_batch: DataBatch | None) -> None:
        """Count the oldest step and call its callbacks."""
        flight = self._flights[0]
        if not flight.counted:
            await self._count(flight)
        self._flights.popleft()
        if self._has_listeners or next_batch is None:
            await self._notify(flight, next_batch)

    async def _count(self, flight: Flight) -> None:
        """Wait for a step and update the metric with it."""
        training, spent, step = self._training, self._spent, flight.step
        metric = training.metric
        try:
            await step.wait()
            began = perf_counter()
            rows = await self._module.inside.count_batch(
                metric, flight, training.count_pad
            )
        except Exception as error:
            note_batch(error, flight.nbatch, self._epoch)
            raise
        finally:
            training.note_dropped(self._epoch, flight.nbatch)
        flight.counted = True
        samples = rows - flight.pad
        compute, reduce = step.compute_seconds, step.reduce_seconds
        training.history.add_batch(
            epoch=self._epoch,
            nbatch=flight.nbatch,
            samples=samples,
            compute=compute,
            reduce=reduce,
            **{f"train-{n}": value for n, value in metric.get_global_name_value()},
        )
        training.display.batch(samples, metric)
        spent.samples += samples
        spent.compute += compute
        spent.reduce += reduce
        spent.metric += perf_counter() - began

    async def _notify(self, flight: Flight, next_batch: DataBatch | None) -> None:
        """Call the batch callbacks of a counted step."""
        training = self._training
        if training.monitor is not None:
            training.monitor.toc_print()
        if not self._flights and next_batch is None:
            # Before the callbacks, which may reset the metric.
            self._values = training.metric.get_global_name_value()
        if not training.batch_end:
            return
        began = perf_counter()
        locals_ = training.known | {
            "epoch": self._epoch,
            "nbatch": flight.nbatch,
            "data_batch": flight.batch,
            "next_data_batch": next_batch,
            "end_of_batch": next_batch is None,
        }
        parameter = BatchEndParam(self._epoch, flight.nbatch, training.metric, locals_)
        try:
            await callback_calls.call(training.batch_end, parameter)
        except StopTraining as stop:
            training.stopped = stop
        self._spent.metric += perf_counter() - began
