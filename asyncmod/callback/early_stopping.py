"""EarlyStopping: no more training when validation does not get better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncmod.callback.best_value import BestValue, Mode
from asyncmod.errors import ArgumentError, StopTraining
from asyncmod.module.callbacks import BatchEndParam


class EarlyStopping:
    """An evaluation-end callback that ends `fit` when validation stops improving.

    One object is for one `fit`. It leaves the parameters as they are; `BestParameters`
    restores the best. Put it behind other callbacks: those after it are not called
    when it stops.

    Args:
        monitor: Name of the value to watch; None if the metric has one only.
        patience: How many epochs in a row may bring nothing better; the next one
            without stops the training.
        mode: Whether small (`min`) or large (`max`) values are good; `auto` knows it
            of MXNet's metrics.
        min_delta: By how much a value must be better to count as better.

    Attributes:
        best: The best value so far; None before the first.
        best_epoch: Its epoch.
        waited: Epochs since then.

    Raises:
        ArgumentError: a negative patience or `min_delta`, or an unknown mode.
    """

    def __init__(
        self,
        monitor: str | None = None,
        patience: int = 0,
        mode: Mode = "auto",
        min_delta: float = 0.0,
    ) -> None:
        if patience < 0:
            raise ArgumentError(f"`patience` is {patience}: it must be at least 0")
        self.patience = patience
        self.best_epoch: int | None = None
        self.waited = 0
        self._best = BestValue(monitor, mode, min_delta)

    @property
    def best(self) -> float | None:
        """The best value so far; None before the first."""
        return self._best.value

    async def __call__(self, param: BatchEndParam) -> None:
        """Judge an epoch.

        Raises:
            StopTraining: it is time to stop.
            ArgumentError: the metric has no such value, or `auto` does not know it.
        """
        name, value = self._best.read(param)
        if self._best.is_better(name, value):
            self._best.value = value
            self.best_epoch = param.epoch
            self.waited = 0
            return
        self.waited += 1
        if self.waited > self.patience:
            raise StopTraining(
                f"{name} was never a number"
                if self.best is None
                else f"{name} is not better than {self.best}, of epoch "
                f"{self.best_epoch}"
            )

    def get_state(self) -> dict[str, Any]:
        """What it has seen, as plain data; `fit` saves it with its checkpoints."""
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `get_state`."""
        self._best.value = state["best"]
        self.best_epoch, self.waited = state["best_epoch"], state["waited"]
