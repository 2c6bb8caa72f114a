"""How often the predicted class is right: Accuracy and TopKAccuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncmod.metric.base import EvalMetric, MetricError, pair_up
from asyncmod.metric.registry import alias, register
from runtime.errors import AsyncmodError


class TopKError(AsyncmodError, AssertionError, ValueError):
    """`top_k` is too small to differ from Accuracy."""


@register
@alias("acc")
class Accuracy(EvalMetric):
    """Share of labels equal to the predicted class.

    A prediction of the label's shape holds classes; any other holds scores, whose
    largest along `axis` is the class.

    Args:
        axis: Where the classes are in a prediction.
        name: Display name.
        output_names: See EvalMetric.
        label_names: See EvalMetric.
    """

    def __init__(
        self,
        axis: int = 1,
        name: str = "accuracy",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            name, output_names, label_names, axis=axis, has_global_stats=True
        )
        self.axis = axis

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch.

        Raises:
            MetricError: sizes differ after the classes were found.
        """
        for label, pred in pair_up(labels, preds):
            found = pred if pred.shape == label.shape else pred.argmax(axis=self.axis)
            expected = label.astype(np.int32).ravel()
            found = found.astype(np.int32).ravel()
            if expected.shape != found.shape:
                raise MetricError(
                    f"Shape of labels {expected.shape} does not match shape of "
                    f"predictions {found.shape}: labels {label.shape}, predictions "
                    f"{pred.shape}, classes along axis {self.axis}"
                )
            self._count(int(np.count_nonzero(found == expected)), len(found))


@register
@alias("top_k_accuracy", "top_k_acc")
class TopKAccuracy(EvalMetric):
    """Share of labels among the `top_k` best scores of their row.

    Args:
        top_k: How many of the best scores count; more than 1.
        name: Display name; `_<top_k>` is added.
        output_names: See EvalMetric.
        label_names: See EvalMetric.

    Raises:
        TopKError: `top_k` is 1 or less.
    """

    def __init__(
        self,
        top_k: int = 1,
        name: str = "top_k_accuracy",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        if top_k <= 1:
            raise TopKError(
                f"`top_k` must be more than 1, not {top_k}: please use Accuracy for 1"
            )
        super().__init__(
            name, output_names, label_names, top_k=top_k, has_global_stats=True
        )
        self.top_k = top_k
        self.name += f"_{top_k}"

    def get_config(self) -> dict[str, Any]:
        """Settings, with the name as it was given."""
        return {
            **super().get_config(),
            "name": self.name.removesuffix(f"_{self.top_k}"),
        }

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch: labels (n,), scores (n, classes) or classes (n,).

        Raises:
            MetricError: the scores have more than two axes, or lengths differ.
        """
        for label, pred in pair_up(labels, preds):
            if pred.ndim > 2:
                raise MetricError(
                    f"predictions must have at most 2 axes, and their shape is "
                    f"{pred.shape}"
                )
            expected = label.astype(np.int32).ravel()
            if len(expected) != len(pred):
                raise MetricError(
                    f"Shape of labels {expected.shape} does not match shape of "
                    f"predictions {pred.shape}"
                )
            if pred.ndim == 1:
                right = pred.astype(np.int32) == expected
            else:
                best = self._best(pred.astype(np.float32))
                right = (best == expected[:, None]).any(axis=1)
            self._count(int(right.sum()), len(pred))

    def _best(self, pred: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        classes = pred.shape[1]
        count = min(self.top_k, classes)
        return np.argpartition(pred, classes - count, axis=1)[:, classes - count :]
