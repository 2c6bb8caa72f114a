"""Metrics fed with a batch: real rows only, and off the Trio thread if it is large.

Next: `asyncmod.module.callbacks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import trio

from asyncmod.errors import InputError
from asyncmod.module.batches import Array, as_array
from asyncmod.module.real_rows import RealRows
from asyncmod.nd.array import as_given

LARGE = 1 << 20
"""Bytes above which work leaves the Trio thread."""


class Metric(Protocol):
    """What the loops ask of a metric."""

    @property
    def is_empty(self) -> bool:
        """Whether it counts nothing."""
        ...

    def reset(self) -> None:
        """Forget all that was counted."""
        ...

    def update_dict(
        self, label: Mapping[str, Array], pred: Mapping[str, Array]
    ) -> None:
        """Count a batch: real rows by label and output name."""
        ...

    def get_name_value(self) -> list[tuple[str, float]]:
        """Names and values since the last local reset."""
        ...

    def get_global_name_value(self) -> list[tuple[str, float]]:
        """Names and values since `reset`."""
        ...

    def get_state(self) -> dict[str, Any]:
        """What was counted, as plain data."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there."""
        ...


def as_metric(eval_metric: Any) -> Metric:
    """A metric from a metric, a name, a function or a list of these.

    Raises:
        AssertionError, ValueError: no metric has that name.
    """
    from asyncmod import metric

    if isinstance(eval_metric, metric.EvalMetric):
        return eval_metric
    return metric.create(eval_metric)


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


def count_rows(labels: Mapping[str, Array], axes: Mapping[str, int]) -> int:
    """Samples in a batch, by its labels; 0 if none is batched."""
    for name, label in labels.items():
        axis = axes.get(name, 0)
        if 0 <= axis < label.ndim:
            return int(label.shape[axis])
    return 0


async def update(
    metric: Metric,
    labels: Mapping[str, Array],
    outputs: Sequence[Array],
    real: RealRows,
) -> None:
    """Update a metric with the real rows; in a thread if there is more than 1 MB."""
    named = dict(zip(real.output_names, outputs, strict=True))
    if sum([array.nbytes for array in (*labels.values(), *outputs)]) > LARGE:
        await trio.to_thread.run_sync(_update, metric, labels, named, real)
    else:
        _update(metric, labels, named, real)


def _update(
    metric: Metric,
    labels: Mapping[str, Array],
    outputs: Mapping[str, Array],
    real: RealRows,
) -> None:
    if not real.are_all:
        labels, outputs = real.of_labels(labels), real.of_outputs(outputs, labels)
    metric.update_dict(
        {name: as_given(array) for name, array in labels.items()},
        {name: as_given(array) for name, array in outputs.items()},
    )
