"""CompositeEvalMetric: several metrics updated together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncmod.metric.base import EvalMetric
from asyncmod.metric.registry import alias, create, register


@register
@alias("composite")
class CompositeEvalMetric(EvalMetric):
    """Updates and reads all its metrics; names and values are lists.

    Args:
        metrics: Metrics, or anything that `create` takes.
        name: Display name of the whole.
        output_names: Outputs that are passed on to the metrics; all unless given.
        label_names: Labels, likewise.
    """

    def __init__(
        self,
        metrics: Sequence[Any] | None = None,
        name: str = "composite",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        self.metrics = [create(metric) for metric in metrics or ()]
        super().__init__(name, output_names, label_names, has_global_stats=True)

    def add(self, metric: Any) -> None:
        """Add a metric, or anything that `create` takes."""
        self.metrics.append(create(metric))

    def get_metric(self, index: int) -> EvalMetric:
        """The metric at `index`.

        Raises:
            ValueError: there is none.
        """
        if not 0 <= index < len(self.metrics):
            raise ValueError(
                f"Metric index {index} is out of range 0 and {len(self.metrics)}"
            )
        return self.metrics[index]

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch in every metric."""
        for metric in self.metrics:
            metric.update(labels, preds)

    def update_dict(self, label: Mapping[str, Any], pred: Mapping[str, Any]) -> None:
        """Count one batch in every metric, which then picks by its own names."""
        if self.label_names is not None:
            label = {name: label[name] for name in self.label_names if name in label}
        if self.output_names is not None:
            pred = {name: pred[name] for name in self.output_names if name in pred}
        for metric in self.metrics:
            metric.update_dict(label, pred)

    def reset(self) -> None:
        """Clear every metric."""
        super().reset()
        for metric in self.metrics:
            metric.reset()

    def reset_local(self) -> None:
        """Clear the local sums of every metric."""
        super().reset_local()
        for metric in self.metrics:
            metric.reset_local()

    @property
    def is_empty(self) -> bool:
        """Whether there is no metric that counts; a subclass may count by itself."""
        return type(self) is CompositeEvalMetric and all(
            metric.is_empty for metric in self.metrics
        )

    def get(self) -> tuple[list[str], list[Any]]:
        """All names and all values."""
        return _split(pair for m in self.metrics for pair in m.get_name_value())

    def get_global(self) -> tuple[list[str], list[Any]]:
        """All names and all values since `reset`."""
        return _split(pair for m in self.metrics for pair in m.get_global_name_value())

    def get_config(self) -> dict[str, Any]:
        """Settings, with those of every metric."""
        metrics = [metric.get_config() for metric in self.metrics]
        return {**super().get_config(), "metrics": metrics}

    def get_state(self) -> dict[str, Any]:
        """Every metric's sums."""
        return {"metrics": [metric.get_state() for metric in self.metrics]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `get_state`.

        Raises:
            ValueError: the state is of another number of metrics.
        """
        for metric, inner in zip(self.metrics, state["metrics"], strict=True):
            metric.set_state(inner)


def _split(pairs: Any) -> tuple[list[str], list[Any]]:
    names, values = [], []
    for name, value in pairs:
        names.append(name)
        values.append(value)
    return names, values
