"""CustomMetric: a metric out of any function of label and prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from asyncmod.metric.base import Array, EvalMetric, as_list, pair_up
from asyncmod.metric.registry import register

Evaluate = Callable[[Array, Array], float | tuple[float, float]]


@register
class CustomMetric(EvalMetric):
    """Mean of what `feval(label, pred)` returns.

    Args:
        feval: Gets one label and one prediction as NumPy arrays. A number counts as
            one instance; a pair is (sum, instances).
        name: Display name; the function's own unless given.
        allow_extra_outputs: Whether there may be more predictions than labels; those
            at the end are then ignored.
        output_names: See EvalMetric.
        label_names: See EvalMetric.
    """

    def __init__(
        self,
        feval: Evaluate,
        name: str | None = None,
        allow_extra_outputs: bool = False,
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        if name is None:
            own = getattr(feval, "__name__", type(feval).__name__)
            name = f"custom({own})" if "<" in own else own
        super().__init__(name, output_names, label_names, has_global_stats=True)
        self._feval = feval
        self._allow_extra_outputs = allow_extra_outputs

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch.

        Raises:
            MetricError: there are not as many labels as predictions.
        """
        if self._allow_extra_outputs:
            labels = as_list(labels)
            preds = as_list(preds)[: len(labels)]
        for label, pred in pair_up(labels, preds):
            result = self._feval(label, pred)
            total, instances = result if isinstance(result, tuple) else (result, 1)
            self._count(total, instances)

    def get_config(self) -> dict[str, Any]:
        """Not possible: a function is no plain data."""
        raise NotImplementedError("CustomMetric cannot be serialized")


def np(
    numpy_feval: Evaluate, name: str | None = None, allow_extra_outputs: bool = False
) -> CustomMetric:
    """A CustomMetric of `numpy_feval`, named after it unless `name` is given."""

    def feval(label: Array, pred: Array) -> Any:
        return numpy_feval(numpy.asarray(label), numpy.asarray(pred))

    feval.__name__ = getattr(numpy_feval, "__name__", "feval")
    return CustomMetric(feval, name, allow_extra_outputs)
