"""What `predict` gives for an array, a batch, or an iterator of batches.

Next: `asyncmod.module.predict`, the loop over an iterator.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

from asyncmod.errors import ArgumentError
from asyncmod.io.batch import DataBatch
from asyncmod.module import predict
from asyncmod.module.batches import Array
from asyncmod.module.flight import (
    check_in_flight,
    limit,
    next_batch,
    padding,
    reading,
)
from asyncmod.module.user_arrays import faces
from asyncmod.nd import NDArray

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule


async def of_anything(
    module: BaseModule,
    eval_data: Any,
    *,
    num_batch: int | None,
    merge_batches: bool,
    reset: bool,
    always_output_list: bool,
    sparse_row_id_fn: Any,
    in_flight: int,
) -> Any:
    """See `BaseModule.predict`."""
    kinds = ("__array__", "__dlpack__", "tocsr")
    if any(hasattr(eval_data, name) for name in kinds):
        return (await of_batch(module, DataBatch([eval_data])))[0]
    if hasattr(eval_data, "data") and not hasattr(eval_data, "__aiter__"):
        return await of_batch(module, eval_data)
    iterable = any(hasattr(eval_data, n) for n in ("__aiter__", "__iter__", "next"))
    if not iterable or isinstance(eval_data, str):
        raise ArgumentError(
            "eval_data must be of type NDArray or DataIter: an array, a DataBatch "
            f"or an iterator of batches, not {type(eval_data).__name__}"
        )
    per_batch, axes = await _outputs(
        module, eval_data, num_batch, reset, sparse_row_id_fn, in_flight
    )
    if not merge_batches:
        return [faces(outputs) for outputs in per_batch]
    merged = faces(await predict.merge(per_batch, axes))
    if len(merged) == 1 and not always_output_list:
        return merged[0]
    return merged


async def of_each_batch(
    module: BaseModule,
    eval_data: Any,
    num_batch: int | None,
    reset: bool,
    sparse_row_id_fn: Any,
) -> list[list[NDArray]]:
    """See `BaseModule.predict_every_batch`."""
    per_batch, _ = await _outputs(
        module, eval_data, num_batch, reset, sparse_row_id_fn, module.in_flight_limit
    )
    return [faces(outputs) for outputs in per_batch]


async def one_by_one(
    module: BaseModule,
    eval_data: Any,
    num_batch: int | None,
    reset: bool,
    sparse_row_id_fn: Any,
) -> AsyncGenerator[tuple[list[NDArray], int, Any], None]:
    """See `BaseModule.iter_predict`."""
    async with reading(eval_data) as batches:
        if reset:
            await batches.reset()
        nbatch = 0
        while nbatch < limit(num_batch):
            try:
                batch = await next_batch(batches)
            except StopAsyncIteration:
                return
            await module.prepare(batch, sparse_row_id_fn)
            yield await of_batch(module, batch), nbatch, batch
            nbatch += 1


async def of_batch(module: BaseModule, batch: Any) -> list[NDArray]:
    """The outputs for a batch, without padding."""
    step = await module.inside.dispatch_predict(batch)
    outputs, axes = await step.outputs(), module.inside.axes_of(step)
    return faces(predict.real_rows(outputs, padding(batch), axes))


async def _outputs(
    module: BaseModule,
    eval_data: Any,
    num_batch: int | None,
    reset: bool,
    sparse_row_id_fn: Any,
    in_flight: int,
) -> tuple[list[list[Array]], Sequence[int]]:
    """Outputs per batch, and the batch axes of the outputs."""
    per_batch: list[list[Array]] = []
    async with reading(eval_data) as batches:
        if reset:
            await batches.reset()
        axes = await predict.run(
            module,
            batches,
            num_batch=num_batch,
            sparse_row_id_fn=sparse_row_id_fn,
            collect=per_batch.append,
            in_flight=check_in_flight(in_flight, module.in_flight_limit),
        )
    return per_batch, axes
