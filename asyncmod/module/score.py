"""The loop behind `score`: forward, metric, callbacks; metric n while n+1 computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncmod.io.iterator import BatchIterator
from asyncmod.module import callbacks as callback_calls
from asyncmod.module.callbacks import BatchEndParam, Callback
from asyncmod.module.flight import (
    Flight,
    Flights,
    at_batch,
    keep_labels,
    limit,
    next_batch,
    padding,
)
from asyncmod.module.metrics import Metric

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule


async def run(
    module: BaseModule,
    batches: BatchIterator,
    metric: Metric,
    *,
    num_batch: int | None,
    batch_end: tuple[Callback, ...],
    score_end: tuple[Callback, ...],
    epoch: int,
    count_pad: bool,
    sparse_row_id_fn: Any,
    in_flight: int,
) -> None:
    """Score one epoch; the metric holds the result.

    An error of the iterator, or a batch that does not fit, is raised after the batches
    before it have been counted.
    """
    known: dict[str, Any] = {
        "self": module,
        "eval_data": batches,
        "eval_metric": metric,
        "num_batch": num_batch,
        "epoch": epoch,
    }
    flights = Flights()

    async def finish() -> None:
        flight = flights[0]
        await at_batch(flight.step.wait(), flight.nbatch)
        counting = module.inside.count_batch(metric, flight, count_pad)
        await at_batch(counting, flight.nbatch)
        flights.popleft()
        if batch_end:
            locals_ = known | {"nbatch": flight.nbatch, "eval_batch": flight.batch}
            await callback_calls.call(
                batch_end, BatchEndParam(epoch, flight.nbatch, metric, locals_)
            )

    metric.reset()
    nbatch = 0
    try:
        while nbatch < limit(num_batch):
            try:
                batch = await next_batch(batches)
                await module.prepare(batch, sparse_row_id_fn)
                labels = await keep_labels(batch)
                step = await at_batch(module.inside.dispatch_predict(batch), nbatch)
            except StopAsyncIteration:
                break
            except Exception:
                while flights:
                    await finish()
                raise
            flights.append(Flight(nbatch, batch, labels, padding(batch), step))
            nbatch += 1
            if len(flights) >= in_flight:
                await finish()
            if flights:
                await flights[-1].step.copied()
        while flights:
            await finish()
    finally:
        await flights.settle()
    if score_end:
        locals_ = known | {"actual_num_batch": nbatch}
        await callback_calls.call(
            score_end, BatchEndParam(epoch, nbatch, metric, locals_)
        )
