"""How probable the labels are: CrossEntropy, NegativeLogLikelihood, Perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncmod.metric.base import EvalMetric, MetricError, class_indices, pair_up
from asyncmod.metric.registry import alias, register


@register
@alias("ce")
class CrossEntropy(EvalMetric):
    """Mean over rows of -log(probability of the label + eps).

    Args:
        eps: Added to probabilities, so that 0 has a logarithm.
        name: Display name.
        output_names: See EvalMetric.
        label_names: See EvalMetric.
    """

    def __init__(
        self,
        eps: float = 1e-12,
        name: str = "cross-entropy",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            name, output_names, label_names, eps=eps, has_global_stats=True
        )
        self.eps = eps

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch: labels (n,), probabilities (n, classes).

        Raises:
            MetricError: lengths differ, or a label is no class.
        """
        for label, pred in pair_up(labels, preds):
            if pred.ndim != 2 or label.size != len(pred):
                raise MetricError(
                    f"probabilities must be (rows, classes) with one label per row; "
                    f"labels are {label.shape}, probabilities {pred.shape}"
                )
            index = class_indices(label, pred.shape[1])
            probability = pred[np.arange(len(pred)), index]
            self._count(float((-np.log(probability + self.eps)).sum()), len(pred))


@register
@alias("nll_loss")
class NegativeLogLikelihood(CrossEntropy):
    """The same figure as CrossEntropy under its other name."""

    def __init__(
        self,
        eps: float = 1e-12,
        name: str = "nll-loss",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(eps, name, output_names, label_names)


@register
class Perplexity(EvalMetric):
    """exp of the mean of -log(probability of the label).

    Args:
        ignore_label: Labels of this value are not counted; None counts all.
        axis: Where the classes are.
        name: Display name.
        output_names: See EvalMetric.
        label_names: See EvalMetric.
    """

    def __init__(
        self,
        ignore_label: int | None,
        axis: int = -1,
        name: str = "perplexity",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            name,
            output_names,
            label_names,
            ignore_label=ignore_label,
            axis=axis,
            has_global_stats=True,
        )
        self.ignore_label = ignore_label
        self.axis = axis

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch: one label per row of probabilities.

        Raises:
            MetricError: lengths differ, or a label is no class.
        """
        for label, pred in pair_up(labels, preds):
            rows = np.moveaxis(pred, self.axis, -1).reshape(-1, pred.shape[self.axis])
            flat = label.ravel()
            if len(flat) != len(rows):
                raise MetricError(
                    f"shape mismatch: labels are {label.shape}, probabilities "
                    f"{pred.shape}"
                )
            if self.ignore_label is not None:
                kept = flat.astype(np.int64) != self.ignore_label
                flat, rows = flat[kept], rows[kept]
            index = class_indices(flat, rows.shape[1])
            probability = rows[np.arange(len(rows)), index]
            loss = -np.log(np.maximum(1e-10, probability)).sum()
            self._count(float(loss), len(rows))

    def _value(self, total: Any, instances: Any) -> Any:
        return math.exp(total / instances) if instances else float("nan")
