"""BestParameters: whatever ends the training, the module has its best parameters."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import trio

from asyncmod.callback.best_value import BestValue, Mode
from asyncmod.module.callbacks import BatchEndParam


class BestParameters:
    """An evaluation-end callback that keeps the best parameters, and restores them.

    Use it around `fit`, inside the module's own scope:

        async with BestParameters(module) as best:
            await module.fit(..., eval_data=valid, eval_end_callback=best)

    The parameters are copied when they have been measured, before the next update. On
    leaving, the module is given the best ones, after the last epoch, StopTraining, an
    error or cancellation alike; for that, cancellation waits. If no epoch was measured
    the module is left as it is. The optimizer's states are not restored. Checkpoints of
    `fit` hold the best parameters, too, and a resumed training goes on with them.

    Args:
        module: The module that is trained, any kind.
        monitor: Name of the value to watch; None if the metric has one only.
        mode: Whether small (`min`) or large (`max`) values are good; `auto` knows it
            of MXNet's metrics.
        min_delta: By how much a value must be better to count as better.

    Attributes:
        best: The best value so far; None before the first.
        best_epoch: Its epoch.

    Raises:
        ArgumentError: a negative `min_delta`, or an unknown mode.
    """

    def __init__(
        self,
        module: Any,
        monitor: str | None = None,
        mode: Mode = "auto",
        min_delta: float = 0.0,
    ) -> None:
        self.module = module
        self.best_epoch: int | None = None
        self._best = BestValue(monitor, mode, min_delta)
        self._parameters: tuple[Any, Any] | None = None

    @property
    def best(self) -> float | None:
        """The best value so far; None before the first."""
        return self._best.value

    async def __call__(self, param: BatchEndParam) -> None:
        """Copy the parameters if they are the best; cancelled, keep those before.

        Raises:
            ArgumentError: the metric has no such value, or `auto` does not know it.
        """
        name, value = self._best.read(param)
        if self._best.is_better(name, value):
            self._parameters = await self.module.get_params()
            self._best.value = value
            self.best_epoch = param.epoch

    async def restore(self) -> None:
        """Give the module the best parameters; none were measured: do nothing."""
        if self._parameters is not None:
            await self.module.set_params(*self._parameters)

    def get_state(self) -> dict[str, Any]:
        """The best parameters, their value and epoch; `fit` saves it."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "parameters": self._parameters,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `get_state`."""
        self._best.value = state["best"]
        self.best_epoch = state["best_epoch"]
        self._parameters = state["parameters"]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with trio.CancelScope(shield=True):
                await self.restore()
        except Exception as failure:
            if error is None:
                raise
            # A device that failed cannot be given parameters; why it failed counts.
            error.add_note(f"the best parameters were not restored: {failure}")
