"""Metrics fed with a batch: real rows only, and off the Trio thread if it is large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import trio

from asyncmod.errors import InputError
from asyncmod.module.batches import Array, as_array
from asyncmod.nd.array import as_given

LARGE = 1 << 20
"""Bytes above which work leaves the Trio thread."""


class Metric(Protocol):
    """What the loops ask of a metric."""

    def reset(self) -> None: ...

    def update_dict(
        self, label: Mapping[str, Array], pred: Mapping[str, Array]
    ) -> None: ...

    def get_name_value(self) -> list[tuple[str, float]]: ...

    def get_global_name_value(self) -> list[tuple[str, float]]: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: Mapping[str, Any]) -> None: ...


def as_metric(eval_metric: Any) -> Metric:
    """A metric from a metric, a name, a function or a list of these.

    Raises:
        AssertionError, ValueError: no metric has that name.
    """
    from asyncmod import metric

    if isinstance(eval_metric, metric.EvalMetric):
        return eval_metric
    return metric.create(eval_metric)


def without_padding(array: Array, rows: int, pad: int, axis: int = 0) -> Array:
    """The part of an array that belongs to real samples.

    An axis may hold several rows per sample (sequences that a net has flattened); an
    array that is not batched is left as it is.

    Args:
        array: Labels or outputs of a whole batch.
        rows: Samples in the batch, padding included.
        pad: Samples at the end that only fill the batch up.
        axis: The batch axis, -1 if there is none.
    """
    if pad <= 0 or axis < 0 or array.ndim <= axis:
        return array
    length = array.shape[axis]
    if length < rows or length % rows:
        return array
    real = (rows - pad) * (length // rows)
    return array[(slice(None),) * axis + (slice(0, real),)]


def name_labels(names: Sequence[str], labels: Any) -> dict[str, Array]:
    """Labels of a batch by name; none gives {}.

    Raises:
        InputError: there are fewer labels than names, or one is no array.
    """
    if labels is None or len(labels) == 0:
        return {}
    if len(labels) < len(names):
        raise InputError(
            f"the batch has {len(labels)} label arrays for {len(names)} labels: "
            f"{', '.join(names)}"
        )
    if not names:
        names = [f"label{i}" for i in range(len(labels))]
    return {
        name: as_array(name, array) for name, array in zip(names, labels, strict=False)
    }


async def update(
    metric: Metric, labels: Mapping[str, Array], outputs: Mapping[str, Array]
) -> None:
    """Update a metric; in a thread if it has more than 1 MB to look at."""
    labels = {name: as_given(array) for name, array in labels.items()}
    outputs = {name: as_given(array) for name, array in outputs.items()}
    arrays = (*labels.values(), *outputs.values())
    if sum(array.nbytes for array in arrays) > LARGE:
        await trio.to_thread.run_sync(metric.update_dict, labels, outputs)
    else:
        metric.update_dict(labels, outputs)
