"""Figures of two-class problems from their four counts: F1 and MCC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from asyncmod.metric.base import Array, EvalMetric, MetricError, pair_up
from asyncmod.metric.registry import register

Counts = list[int]  # true positives, false positives, true negatives, false negatives


class _BinaryMetric(EvalMetric):
    """Counts hits and misses of class 1; a subclass makes a figure of them."""

    state_fields: ClassVar[tuple[str, ...]] = (
        *EvalMetric.state_fields,
        "_counts",
        "_global_counts",
    )

    def __init__(
        self,
        name: str,
        output_names: Sequence[str] | None,
        label_names: Sequence[str] | None,
        average: Literal["macro", "micro"],
    ) -> None:
        self.average = average
        super().__init__(
            name, output_names, label_names, average=average, has_global_stats=True
        )

    def figure(self, counts: Counts) -> float:
        raise NotImplementedError(
            f"{type(self).__name__} must define `figure(self, counts)`"
        )

    def reset(self) -> None:
        """Clear everything."""
        super().reset()
        self._counts: Counts = [0, 0, 0, 0]
        self._global_counts: Counts = [0, 0, 0, 0]

    def reset_local(self) -> None:
        """Clear the local sums."""
        super().reset_local()
        self._counts = [0, 0, 0, 0]

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch: labels (n,) of 0 and 1, scores (n, 2).

        Raises:
            MetricError: there are more than two classes, or lengths differ.
        """
        batch = [0, 0, 0, 0]
        for label, pred in pair_up(labels, preds):
            batch = _sum(batch, self._count_pair(label, pred))
        if self.average == "macro":
            self._count(self.figure(batch), 1)
            return
        self._counts = _sum(self._counts, batch)
        self._global_counts = _sum(self._global_counts, batch)
        self.num_inst = sum(self._counts)
        self.sum_metric = self.figure(self._counts) * self.num_inst
        self.global_num_inst = sum(self._global_counts)
        self.global_sum_metric = self.figure(self._global_counts) * self.global_num_inst

    def _count_pair(self, label: Array, pred: Array) -> Counts:
        expected, found = label.astype(np.int32).ravel(), pred.argmax(axis=1)
        if expected.shape != found.shape:
            raise MetricError(
                f"Shape of labels {label.shape} does not match shape of predictions "
                f"{pred.shape}"
            )
        if len(np.unique(expected)) > 2:
            raise MetricError(
                f"{type(self).__name__} currently only supports binary classification, "
                f"and there are {len(np.unique(expected))} different labels"
            )
        positive, hit = found == 1, expected == 1
        return [
            int((positive & hit).sum()),
            int((positive & ~hit).sum()),
            int((~positive & ~hit).sum()),
            int((~positive & hit).sum()),
        ]


def _sum(first: Counts, second: Counts) -> Counts:
    return [a + b for a, b in zip(first, second, strict=True)]


@register
class F1(_BinaryMetric):
    """F1 score of class 1: 2PR / (P + R), 0 where that is 0/0.

    Args:
        name: Display name.
        output_names: See EvalMetric.
        label_names: See EvalMetric.
        average: "macro" is the mean over updates, "micro" that of all counts.
    """

    def __init__(
        self,
        name: str = "f1",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        average: Literal["macro", "micro"] = "macro",
    ) -> None:
        super().__init__(name, output_names, label_names, average)

    def figure(self, counts: Counts) -> float:
        """F1 of the counts."""
        hits, false_positives, _, misses = counts
        precision = hits / (hits + false_positives) if hits + false_positives else 0.0
        recall = hits / (hits + misses) if hits + misses else 0.0
        both = precision + recall
        return 2 * precision * recall / both if both else 0.0


@register
class MCC(_BinaryMetric):
    """Matthews' correlation coefficient of two classes.

    Args:
        name: Display name.
        output_names: See EvalMetric.
        label_names: See EvalMetric.
        average: "macro" is the mean over updates, "micro" that of all counts.
    """

    def __init__(
        self,
        name: str = "mcc",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        average: Literal["macro", "micro"] = "macro",
    ) -> None:
        super().__init__(name, output_names, label_names, average)

    def figure(self, counts: Counts) -> float:
        """MCC of the counts; margins of zero are left out of the denominator."""
        hits, false_positives, rejections, misses = counts
        if not sum(counts):
            return 0.0
        margins = [
            hits + false_positives,
            hits + misses,
            rejections + false_positives,
            rejections + misses,
        ]
        product = math.prod(float(margin) for margin in margins if margin)
        return (hits * rejections - false_positives * misses) / math.sqrt(product)
