"""BestValue: which validation is the best so far, by one value of the metric."""

from __future__ import annotations

from typing import Literal

from asyncmod.errors import ArgumentError
from asyncmod.module.callbacks import BatchEndParam

Mode = Literal["auto", "min", "max"]

_LARGE_IS_GOOD = ("accuracy", "top_k_accuracy", "f1", "mcc", "pcc", "pearsonr")
_SMALL_IS_GOOD = (
    "cross-entropy",
    "nll-loss",
    "perplexity",
    "mae",
    "mse",
    "rmse",
    "loss",
)


class BestValue:
    """Compares one value of the metric with the best before.

    Args:
        name: The value's name, such as `accuracy`; None if the metric has one only.
        mode: Whether small (`min`) or large (`max`) values are good; `auto` knows it
            of MXNet's metrics by their names.
        min_delta: By how much a value must be better to count as better; at least 0.

    Attributes:
        value: The best so far, set by whoever compares; None before the first.

    Raises:
        ArgumentError: another mode, or a negative `min_delta`.
    """

    def __init__(self, name: str | None, mode: Mode, min_delta: float) -> None:
        if mode not in ("auto", "min", "max"):
            raise ArgumentError(f"`mode` is {mode!r}: use 'min', 'max' or 'auto'")
        if not min_delta >= 0:
            raise ArgumentError(f"`min_delta` is {min_delta!r}: it must be at least 0")
        self.name = name
        self.value: float | None = None
        self._mode = mode
        self._min_delta = min_delta

    def read(self, param: BatchEndParam) -> tuple[str, float]:
        """Name and value of what is compared.

        Raises:
            ArgumentError: the metric has no such value, or several and none is chosen.
        """
        values = dict(param.eval_metric.get_global_name_value())
        if self.name is None and len(values) != 1:
            raise ArgumentError(
                f"the metric has {len(values)} values ({', '.join(values)}): choose "
                "one, monitor=..."
            )
        name = next(iter(values)) if self.name is None else self.name
        if name not in values:
            raise ArgumentError(
                f"`monitor` is {name!r}, but the metric has: {', '.join(values)}"
            )
        return name, float(values[name])

    def is_better(self, name: str, value: float) -> bool:
        """Whether a value is better than the best; one that is not a number never is.

        Raises:
            ArgumentError: `auto`, and the name says nothing.
        """
        sign = self._sign(name)
        if self.value is None:
            return value == value
        return sign * (value - self.value) > self._min_delta

    def _sign(self, name: str) -> int:
        if self._mode == "auto":
            if name in _SMALL_IS_GOOD:
                return -1
            if name in _LARGE_IS_GOOD or name.startswith("top_k_accuracy_"):
                return 1
            raise ArgumentError(
                f"whether small or large values of `{name}` are good is not known: "
                "say mode='min' or mode='max'"
            )
        return 1 if self._mode == "max" else -1
