"""The loop behind `predict`: outputs of the real rows, batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import trio

from asyncmod.errors import ArgumentError
from asyncmod.io.iterator import BatchIterator
from asyncmod.module.batches import Array
from asyncmod.module.flight import Flight, Flights, at_batch, limit, padding
from asyncmod.module.metrics import LARGE

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule


async def run(
    module: BaseModule,
    batches: BatchIterator,
    *,
    num_batch: int | None,
    sparse_row_id_fn: Any,
    collect: Callable[[list[Array]], None],
    in_flight: int,
) -> None:
    """Predict one epoch and hand each batch's real outputs to `collect`."""
    flights = Flights()

    async def finish() -> None:
        flight = flights[0]
        outputs = await at_batch(flight.step.outputs(), flight.nbatch)
        flights.popleft()
        collect(real_rows(outputs, flight.pad))

    nbatch = 0
    try:
        while nbatch < limit(num_batch):
            try:
                batch = await batches.next()
            except StopAsyncIteration:
                break
            await module.prepare(batch, sparse_row_id_fn)
            step = await at_batch(module._dispatch_predict(batch), nbatch)
            flights.append(Flight(nbatch, batch, (), padding(batch), step))
            nbatch += 1
            if len(flights) >= in_flight:
                await finish()
            if flights:
                await flights[-1].step.copied()
        while flights:
            await finish()
    finally:
        await flights.settle()


def real_rows(outputs: list[Array], pad: int) -> list[Array]:
    """Outputs without the rows that only fill the batch up (axis 0, as in MXNet)."""
    if pad <= 0:
        return outputs
    return [output[: max(output.shape[0] - pad, 0)] for output in outputs]


async def merge(batches: list[list[Array]]) -> list[Array]:
    """One array per output, the batches joined on axis 0; more than 1 MB in a thread.

    Raises:
        ArgumentError: the batches differ in their number of outputs.
    """
    if not batches:
        return []
    counts = {len(outputs) for outputs in batches}
    if len(counts) > 1:
        raise ArgumentError(
            "Cannot merge batches, as num of outputs is not the same in mini-batches. "
            f"Maybe bucketing is used? The batches have {sorted(counts)} outputs: "
            "predict with merge_batches=False"
        )
    if sum(output.nbytes for outputs in batches for output in outputs) > LARGE:
        return await trio.to_thread.run_sync(_join, batches)
    return _join(batches)


def _join(batches: list[list[Array]]) -> list[Array]:
    if len(batches) == 1:
        return batches[0]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
