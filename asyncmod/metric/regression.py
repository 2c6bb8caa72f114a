"""Distance between numbers: MAE, MSE, RMSE; and their correlation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from asyncmod.metric.base import Array, EvalMetric, MetricError, pair_up
from asyncmod.metric.registry import alias, register


def _columns(label: Array, pred: Array) -> Array:
    """Label minus prediction; vectors count as columns."""
    if label.ndim == 1:
        label = label.reshape(-1, 1)
    if pred.ndim == 1:
        pred = pred.reshape(-1, 1)
    return label - pred


@register
class MAE(EvalMetric):
    """Mean over updates of the mean absolute difference."""

    def __init__(
        self,
        name: str = "mae",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, output_names, label_names, has_global_stats=True)

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch as one instance per pair of label and prediction."""
        for label, pred in pair_up(labels, preds):
            self._count(float(np.abs(_columns(label, pred)).mean()), 1)


@register
class MSE(EvalMetric):
    """Mean over updates of the mean squared difference."""

    def __init__(
        self,
        name: str = "mse",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, output_names, label_names, has_global_stats=True)

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch as one instance per pair of label and prediction."""
        for label, pred in pair_up(labels, preds):
            self._count(float((_columns(label, pred) ** 2.0).mean()), 1)


@register
class RMSE(EvalMetric):
    """Mean over updates of the root of the mean squared difference."""

    def __init__(
        self,
        name: str = "rmse",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, output_names, label_names, has_global_stats=True)

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch as one instance per pair of label and prediction."""
        for label, pred in pair_up(labels, preds):
            self._count(float(np.sqrt((_columns(label, pred) ** 2.0).mean())), 1)


@register
@alias("pearsonr")
class PearsonCorrelation(EvalMetric):
    """Pearson's correlation of labels and predictions.

    Args:
        name: Display name.
        output_names: See EvalMetric.
        label_names: See EvalMetric.
        average: "macro" is the mean over updates, "micro" that of all numbers
            together, by `get`; `get_global` then gives 0, as in MXNet.
    """

    state_fields: ClassVar[tuple[str, ...]] = (
        *EvalMetric.state_fields,
        "_samples",
        "_means",
        "_squares",
        "_product",
    )

    def __init__(
        self,
        name: str = "pearsonr",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        average: Literal["macro", "micro"] = "macro",
    ) -> None:
        self.average = average
        super().__init__(
            name, output_names, label_names, average=average, has_global_stats=True
        )

    def reset(self) -> None:
        """Clear everything."""
        super().reset()
        self._clear_moments()

    def reset_local(self) -> None:
        """Clear the local sums."""
        super().reset_local()
        self._clear_moments()

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch.

        Raises:
            MetricError: the shapes differ.
        """
        for label, pred in pair_up(labels, preds):
            if label.shape != pred.shape:
                raise MetricError(
                    f"Shape of labels {label.shape} does not match shape of "
                    f"predictions {pred.shape}"
                )
            x, y = label.ravel().astype(np.float64), pred.ravel().astype(np.float64)
            if self.average == "macro":
                self._count(float(np.corrcoef(y, x)[0, 1]), 1)
            else:
                self._count(0.0, 1)
                self._add_moments(x, y)

    def get(self) -> tuple[str, Any]:
        """(name, correlation); NaN before any update."""
        if self.average == "macro" or self.num_inst == 0:
            return super().get()
        spread = np.sqrt(self._squares[0]) * np.sqrt(self._squares[1])
        return self.name, self._product / spread

    def _clear_moments(self) -> None:
        self._samples = 0
        self._means = [0.0, 0.0]
        self._squares = [0.0, 0.0]  # sums of squared distances to the mean
        self._product = 0.0  # sum of products of both distances

    def _add_moments(self, x: Array, y: Array) -> None:
        """Chan's rule for joining the moments of two samples."""
        old, new = self._samples, x.size
        weight = old * new / (old + new)
        means = [float(x.mean()), float(y.mean())]
        steps = [mean - before for mean, before in zip(means, self._means, strict=True)]
        for i, values in enumerate((x, y)):
            self._squares[i] += float(((values - means[i]) ** 2).sum())
            self._squares[i] += steps[i] ** 2 * weight
            self._means[i] += steps[i] * new / (old + new)
        self._product += float(((x - means[0]) * (y - means[1])).sum())
        self._product += steps[0] * steps[1] * weight
        self._samples = old + new
