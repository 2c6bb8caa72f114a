"""The loop behind `predict`: outputs of the real rows, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import trio

from asyncmod.errors import ArgumentError
from asyncmod.io.iterator import BatchIterator
from asyncmod.module.batches import Array
from asyncmod.module.flight import Flight, Flights, at_batch, limit, next_batch, padding
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
) -> Sequence[int]:
    """Predict one epoch and hand each batch's real outputs to `collect`.

    Returns:
        The batch axes of the last batch's outputs; none if there was no batch.
    """
    flights = Flights()
    axes: Sequence[int] = ()

    async def finish() -> None:
        nonlocal axes
        flight = flights[0]
        outputs = await at_batch(flight.step.outputs(), flight.nbatch)
        flights.popleft()
        axes = module.inside.axes_of(flight.step)
        collect(real_rows(outputs, flight.pad, axes))

    nbatch = 0
    try:
        while nbatch < limit(num_batch):
            try:
                batch = await next_batch(batches)
            except StopAsyncIteration:
                break
            await module.prepare(batch, sparse_row_id_fn)
            step = await at_batch(module.inside.dispatch_predict(batch), nbatch)
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
    return axes


def real_rows(outputs: list[Array], pad: int, axes: Sequence[int]) -> list[Array]:
    """Outputs without the rows that only fill the batch up.

    Args:
        outputs: Of a whole batch.
        pad: Rows at its end to leave out.
        axes: The batch axis of each output; -1 if it has none, and is left as it is.
    """
    if pad <= 0:
        return outputs
    return [
        output[(slice(None),) * axis + (slice(0, max(output.shape[axis] - pad, 0)),)]
        if 0 <= axis < output.ndim
        else output
        for output, axis in zip(outputs, axes, strict=True)
    ]


async def merge(batches: list[list[Array]], axes: Sequence[int]) -> list[Array]:
    """One array per output, all batches on its batch axis; over 1 MB in a thread.

    Outputs without a batch axis, such as sums, stand one after another on axis 0.

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
        return await trio.to_thread.run_sync(_join, batches, axes)
    return _join(batches, axes)


def _join(batches: list[list[Array]], axes: Sequence[int]) -> list[Array]:
    if len(batches) == 1:
        return batches[0]
    return [
        np.concatenate(parts, axis=max(axis, 0))
        for parts, axis in zip(zip(*batches, strict=True), axes, strict=True)
    ]
