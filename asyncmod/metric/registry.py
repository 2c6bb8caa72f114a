"""Metrics by name: `register`, `alias` and `create`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from asyncmod.metric.base import EvalMetric, parse_config
from runtime.errors import AsyncmodError

Metric = TypeVar("Metric", bound=type[EvalMetric])

_classes: dict[str, type[EvalMetric]] = {}


class UnknownMetricError(AsyncmodError, AssertionError, ValueError):
    """No metric has the name asked for."""


def register(metric: Metric) -> Metric:
    """Make a metric class known to `create` by its name in lower case."""
    _classes[metric.__name__.lower()] = metric
    return metric


def alias(*names: str) -> Callable[[Metric], Metric]:
    """Make a metric class known by further names."""

    def add(metric: Metric) -> Metric:
        _classes.update(dict.fromkeys(names, metric))
        return metric

    return add


def create(metric: Any, *args: Any, **kwargs: Any) -> EvalMetric:
    """The metric that `metric` stands for.

    Args:
        metric: A metric (returned as it is), a function (label, pred) -> value, a
            registered name, a metric's `get_config()` or its JSON text, or a list
            of these.
        *args: Passed on to the class.
        **kwargs: Passed on to the class.

    Raises:
        UnknownMetricError: no metric has this name.
    """
    if isinstance(metric, EvalMetric):
        return metric
    if isinstance(metric, list | tuple):
        return _create_named("composite", [create(m, *args, **kwargs) for m in metric])
    if isinstance(metric, type):
        return _create_named(metric.__name__.lower(), *args, **kwargs)
    if callable(metric):
        return _create_named("custommetric", metric, *args, **kwargs)
    config = metric if isinstance(metric, dict) else parse_config(str(metric))
    if config is not None:
        return _from_config(config)
    return _create_named(str(metric).lower(), *args, **kwargs)


def _from_config(config: dict[str, Any]) -> EvalMetric:
    settings = {name: value for name, value in config.items() if name != "metric"}
    key = str(config.get("metric", config)).lower()
    if key == "compositeevalmetric":
        settings["metrics"] = [_from_config(inner) for inner in settings["metrics"]]
    return _create_named(key, **settings)


def _create_named(key: str, /, *args: Any, **kwargs: Any) -> EvalMetric:
    if key not in _classes:
        raise UnknownMetricError(
            f"{key} is not registered. Please register with metric name {key} first: "
            f"known are {', '.join(sorted(_classes))}"
        )
    return _classes[key](*args, **kwargs)
