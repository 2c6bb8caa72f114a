"""EvalMetric: sums over updates, local ones and those of the whole run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from runtime.errors import AsyncmodError

Array = np.ndarray[Any, np.dtype[Any]]


class MetricError(AsyncmodError, ValueError, AssertionError):
    """Labels and predictions do not fit the metric."""


class EvalMetric:
    """Base class of metrics: `sum_metric / num_inst`, kept twice.

    The local sums may be cleared while training goes on (`reset_local`, as
    Speedometer does); the global ones go on to `reset`. A subclass defines
    `update(labels, preds)` and adds to both by `_count`; one that only adds to
    `sum_metric` and `num_inst` works too and has no global value of its own.

    Args:
        name: Display name.
        output_names: Which outputs `update_dict` takes, in order; all unless given.
        label_names: Which labels it takes, likewise.
        **kwargs: Further settings, kept for `get_config`.
    """

    state_fields: ClassVar[tuple[str, ...]] = (
        "sum_metric",
        "num_inst",
        "global_sum_metric",
        "global_num_inst",
    )
    """Attributes that `get_state` saves: numbers and lists of them."""

    def __init__(
        self,
        name: str,
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.name = str(name)
        self.output_names = output_names
        self.label_names = label_names
        self._has_global_stats = bool(kwargs.pop("has_global_stats", False))
        self._kwargs = kwargs
        self.reset()

    def update(self, labels: Any, preds: Any) -> None:
        """Count one batch; every row given counts.

        Args:
            labels: One array per label.
            preds: One array per output.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `update(self, labels, preds)`"
        )

    def update_dict(self, label: Mapping[str, Any], pred: Mapping[str, Any]) -> None:
        """`update` with labels and outputs picked by name."""
        self.update(_pick(label, self.label_names), _pick(pred, self.output_names))

    def reset(self) -> None:
        """Clear everything."""
        self.num_inst: Any = 0
        self.sum_metric: Any = 0.0
        self.global_num_inst: Any = 0
        self.global_sum_metric: Any = 0.0

    def reset_local(self) -> None:
        """Clear the local sums; the global ones go on."""
        self.num_inst = 0
        self.sum_metric = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether it counts nothing, so that outputs need not be read for it."""
        return False

    def get(self) -> tuple[Any, Any]:
        """(name, value) since the last reset of any kind; NaN before any update."""
        return self.name, self._value(self.sum_metric, self.num_inst)

    def get_global(self) -> tuple[Any, Any]:
        """(name, value) since the last `reset`."""
        if not self._has_global_stats:
            return self.get()
        return self.name, self._value(self.global_sum_metric, self.global_num_inst)

    def get_name_value(self) -> list[tuple[str, Any]]:
        """`get` as a list of pairs."""
        return _pairs(*self.get())

    def get_global_name_value(self) -> list[tuple[str, Any]]:
        """`get_global` as a list of pairs."""
        return _pairs(*self.get_global())

    def get_config(self) -> dict[str, Any]:
        """Settings from which `create(json.dumps(config))` makes an equal metric."""
        return {
            **self._kwargs,
            "metric": type(self).__name__,
            "name": self.name,
            "output_names": self.output_names,
            "label_names": self.label_names,
        }

    def get_state(self) -> dict[str, Any]:
        """The sums as plain data."""
        return {field: _plain(getattr(self, field)) for field in self.state_fields}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `get_state`'s sums."""
        for field in self.state_fields:
            setattr(self, field, state[field])

    def __str__(self) -> str:
        return f"EvalMetric: {dict(self.get_name_value())}"

    def _count(self, total: float, instances: float) -> None:
        """Add to the local and to the global sums."""
        total, instances = _plain(total), _plain(instances)
        self.sum_metric += total
        self.global_sum_metric += total
        self.num_inst += instances
        self.global_num_inst += instances

    def _value(self, total: Any, instances: Any) -> Any:
        return total / instances if instances else float("nan")


def pair_up(labels: Any, preds: Any) -> list[tuple[Array, Array]]:
    """Labels with their predictions, as plain arrays; single ones are taken as lists.

    Raises:
        MetricError: there are not as many labels as predictions.
    """
    label_list, pred_list = as_list(labels), as_list(preds)
    if len(label_list) != len(pred_list):
        raise MetricError(
            f"Shape of labels {len(label_list)} does not match shape of predictions "
            f"{len(pred_list)}: give one label per output, or choose them by "
            "`output_names` and `label_names`"
        )
    return [
        (np.asarray(label), np.asarray(pred))
        for label, pred in zip(label_list, pred_list, strict=True)
    ]


def as_list(arrays: Any) -> list[Any]:
    """A list of arrays; one array stands for a list of one."""
    return list(arrays) if isinstance(arrays, list | tuple) else [arrays]


def check_label_shapes(
    labels: Any, preds: Any, wrap: bool = False, shape: bool = False
) -> tuple[Any, Any]:
    """Compare lengths, or shapes, of labels and predictions (MXNet's helper).

    Raises:
        MetricError: they differ.
    """
    label_shape, pred_shape = (
        (labels.shape, preds.shape) if shape else (len(labels), len(preds))
    )
    if label_shape != pred_shape:
        raise MetricError(
            f"Shape of labels {label_shape} does not match shape of predictions "
            f"{pred_shape}"
        )
    return (as_list(labels), as_list(preds)) if wrap else (labels, preds)


def class_indices(label: Array, classes: int) -> Array:
    """Labels as indices into `classes` columns, flattened.

    Raises:
        MetricError: a label is NaN, negative or too large.
    """
    flat = label.ravel()
    valid = (flat >= 0) & (flat < classes)
    if not valid.all():
        raise MetricError(
            f"labels must be class numbers from 0 to {classes - 1}, and there is "
            f"{flat[~valid][0]}"
        )
    return flat.astype(np.int64)


def _pick(arrays: Mapping[str, Any], names: Sequence[str] | None) -> list[Any]:
    if names is None:
        return list(arrays.values())
    return [arrays[name] for name in names]


def _pairs(names: Any, values: Any) -> list[tuple[str, Any]]:
    if not isinstance(names, list):
        names, values = [names], [values]
    return list(zip(names, values, strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def parse_config(text: str) -> dict[str, Any] | None:
    """The dict in a JSON text made of `get_config`, or None if it is no JSON."""
    try:
        config = json.loads(text)
    except ValueError:
        return None
    return config if isinstance(config, dict) else None
