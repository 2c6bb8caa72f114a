"""Metrics of a module: its outputs and the labels of a batch, by name, counted.

Next: `asyncmod.module.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asyncmod.module import metrics
from asyncmod.module.batches import Array, as_array
from asyncmod.module.descriptions import batch_axis, batch_size
from asyncmod.module.flight import Flight
from asyncmod.module.real_rows import RealRows

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule


async def count_batch(
    module: BaseModule, metric: Any, flight: Flight, count_pad: bool
) -> int:
    """Update a metric with a completed step; returns the rows of the batch."""
    rows = rows_of(module, flight.batch)
    if not flight.has_outputs:
        return rows
    outputs = await flight.step.outputs()
    real = module.inside.real_rows(rows, 0 if count_pad else flight.pad)
    names = list(real.label_axes) or module.label_names
    labels = metrics.name_labels(names, flight.labels)
    await metrics.update(metric, labels, outputs, real)
    return rows


async def count_outputs(
    module: BaseModule, metric: Any, labels: Sequence[Array]
) -> None:
    """Update a metric with the last outputs; the labels say how many samples it is."""
    by_name = metrics.name_labels(label_order(module), labels)
    outputs = await module.get_outputs()
    axes = {d.name: batch_axis(d) for d in module.inside.labels}
    real = module.inside.real_rows(metrics.count_rows(by_name, axes), 0)
    await metrics.update(metric, by_name, outputs, real)


def real_rows(
    module: BaseModule, rows: int, pad: int, slices: Sequence[int]
) -> RealRows:
    """How a batch's samples lie in labels and outputs; `slices` are the devices'."""
    names = module.output_names
    return RealRows(
        rows,
        pad,
        slices,
        {d.name: batch_axis(d) for d in module.inside.labels},
        dict(zip(names, module.inside.output_axes, strict=True)),
        names,
    )


def label_order(module: BaseModule) -> list[str]:
    """Names of the labels in the order of a batch's label arrays."""
    described = module.inside.labels
    return [d.name for d in described] if described else module.label_names


def rows_of(module: BaseModule, batch: Any) -> int:
    """Samples in a batch, padding included."""
    described = module.data_shapes
    for description, array in zip(described, batch.data, strict=False):
        axis = batch_axis(description)
        if axis >= 0:
            shape = getattr(array, "shape", None)
            if shape is None:
                shape = as_array(description.name, array).shape
            return int(shape[axis])
    return batch_size(described)
