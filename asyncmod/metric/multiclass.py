"""PCC: correlation of labels and predictions over any number of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asyncmod.metric.base import Array, EvalMetric, MetricError, pair_up
from asyncmod.metric.registry import register


@register
class PCC(EvalMetric):
    """Correlation from the confusion matrix; for two classes it equals MCC.

    Labels are (n,), predictions (n, classes) or classes (n,). The matrix grows with
    the classes seen. NaN while all rows are of one class.
    """

    def __init__(
        self,
        name: str = "pcc",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        has_global_stats: bool = True,
    ) -> None:
        super().__init__(
            name, output_names, label_names, has_global_stats=has_global_stats
        )

    def reset(self) -> None:
        """Clear everything."""
        super().reset()
        self._local = np.zeros((2, 2), np.int64)
        self._global = np.zeros((2, 2), np.int64)

    def reset_local(self) -> None:
        """Clear the local counts."""
        super().reset_local()
        self._local = np.zeros((2, 2), np.int64)

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch.

        Raises:
            MetricError: lengths differ, or a class is negative.
        """
        for label, pred in pair_up(labels, preds):
            expected = label.astype(np.int32).ravel()
            scores = pred.shape != label.shape
            found = (pred.argmax(axis=1) if scores else pred).astype(np.int32).ravel()
            if expected.shape != found.shape:
                raise MetricError(
                    f"Shape of labels {label.shape} does not match shape of "
                    f"predictions {pred.shape}"
                )
            if min(expected.min(initial=0), found.min(initial=0)) < 0:
                raise MetricError("classes must not be negative")
            self._local = _add_counts(self._local, expected, found)
            self._global = _add_counts(self._global, expected, found)
            self._count(0.0, 1)
        self.sum_metric = _correlation(self._local) * self.num_inst
        self.global_sum_metric = _correlation(self._global) * self.global_num_inst

    def get_state(self) -> dict[str, Any]:
        """The sums and both matrices as plain data."""
        return {
            **super().get_state(),
            "local": self._local.tolist(),
            "global": self._global.tolist(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `get_state`."""
        super().set_state(state)
        self._local = np.array(state["local"], np.int64)
        self._global = np.array(state["global"], np.int64)


def _add_counts(matrix: Array, expected: Array, found: Array) -> Array:
    size = max(len(matrix), 1 + expected.max(initial=0), 1 + found.max(initial=0))
    grown = np.zeros((size, size), np.int64)
    grown[: len(matrix), : len(matrix)] = matrix
    np.add.at(grown, (found, expected), 1)
    return grown


def _correlation(matrix: Array) -> float:
    rows, columns = matrix.sum(axis=1), matrix.sum(axis=0)
    total = int(matrix.sum())
    xy = float((np.diag(matrix) * total - rows * columns).sum())
    xx = float((rows * (total - rows)).sum())
    yy = float((columns * (total - columns)).sum())
    return xy / math.sqrt(xx * yy) if xx and yy else float("nan")
