"""Loss: the mean of what a loss head puts out; Torch and Caffe are its old names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncmod.metric.base import EvalMetric, as_list
from asyncmod.metric.registry import register


@register
class Loss(EvalMetric):
    """Mean of all outputs' elements; labels are ignored."""

    def __init__(
        self,
        name: str = "loss",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, output_names, label_names, has_global_stats=True)

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch of any shapes."""
        for pred in as_list(preds):
            values = np.asarray(pred)
            self._count(float(values.sum()), values.size)


@register
class Torch(Loss):
    """Loss under the name `torch`."""

    def __init__(
        self,
        name: str = "torch",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, output_names, label_names)


@register
class Caffe(Loss):
    """Loss under the name `caffe`."""

    def __init__(
        self,
        name: str = "caffe",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, output_names, label_names)
