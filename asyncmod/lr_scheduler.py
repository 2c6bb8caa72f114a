"""Learning rate schedules: `scheduler(num_update) -> learning rate`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from asyncmod import log


class LRScheduler:
    """Base class: the warm-up, and then a rule that a subclass defines.

    Args:
        base_lr: Learning rate after the warm-up. An optimizer that is given a
            learning rate of its own puts it here.
        warmup_steps: How many updates the warm-up lasts.
        warmup_begin_lr: Learning rate at the warm-up's beginning.
        warmup_mode: "linear" grows to `base_lr`; "constant" stays at the beginning.

    Raises:
        ValueError: `warmup_begin_lr` is above `base_lr`, `warmup_steps` is negative,
            or the mode is unknown.
    """

    def __init__(
        self,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: Literal["linear", "constant"] = "linear",
    ) -> None:
        if warmup_begin_lr > base_lr:
            raise ValueError(
                "Base lr has to be higher than warmup_begin_lr: `base_lr` is "
                f"{base_lr}, `warmup_begin_lr` is {warmup_begin_lr}"
            )
        if warmup_steps < 0:
            raise ValueError(
                "Warmup steps has to be positive or 0: `warmup_steps` is "
                f"{warmup_steps}"
            )
        if warmup_mode not in ("linear", "constant"):
            raise ValueError(
                "Supports only linear and constant modes of warmup: `warmup_mode` is "
                f"{warmup_mode!r}"
            )
        self.base_lr = base_lr
        self.warmup_steps = warmup_steps
        self.warmup_begin_lr = warmup_begin_lr
        self.warmup_final_lr = base_lr
        self.warmup_mode = warmup_mode

    def __call__(self, num_update: int) -> float:
        """The learning rate of update number `num_update`."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `__call__(self, num_update)`"
        )

    def get_warmup_lr(self, num_update: int) -> float:
        """The learning rate during the warm-up."""
        if self.warmup_mode == "constant":
            return self.warmup_begin_lr
        rise = self.warmup_final_lr - self.warmup_begin_lr
        return self.warmup_begin_lr + rise * num_update / self.warmup_steps

    def get_state(self) -> dict[str, Any]:
        """What changes while it runs, as plain data."""
        return {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, int | float | str)
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `get_state`."""
        vars(self).update(state)


class FactorScheduler(LRScheduler):
    """Multiplies the learning rate by `factor` after every `step` updates.

    It goes forward only: asked for an earlier update, it gives the present rate.

    Args:
        step: Updates between two changes.
        factor: What the rate is multiplied by; at most 1.
        stop_factor_lr: The rate never falls below this.
        base_lr: See LRScheduler, as for the rest.
        warmup_steps: See LRScheduler.
        warmup_begin_lr: See LRScheduler.
        warmup_mode: See LRScheduler.

    Raises:
        ValueError: `step` is below 1, or `factor` above 1.
    """

    def __init__(
        self,
        step: int,
        factor: float = 1.0,
        stop_factor_lr: float = 1e-8,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: Literal["linear", "constant"] = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if step < 1:
            raise ValueError(
                f"Schedule step must be greater or equal than 1: `step` is {step}"
            )
        _check_factor(factor)
        self.step = step
        self.factor = factor
        self.stop_factor_lr = stop_factor_lr
        self.count = 0

    def __call__(self, num_update: int) -> float:
        """The learning rate of update number `num_update`."""
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        while num_update > self.count + self.step:
            self.count += self.step
            self.base_lr *= self.factor
            if self.base_lr < self.stop_factor_lr:
                self.base_lr = self.stop_factor_lr
                _log_change(num_update, self.base_lr, stays=True)
            else:
                _log_change(num_update, self.base_lr)
        return self.base_lr


class MultiFactorScheduler(LRScheduler):
    """Multiplies the learning rate by `factor` after each of given updates.

    It goes forward only: asked for an earlier update, it gives the present rate.

    Args:
        step: Numbers of updates, increasing.
        factor: What the rate is multiplied by; at most 1.
        base_lr: See LRScheduler, as for the rest.
        warmup_steps: See LRScheduler.
        warmup_begin_lr: See LRScheduler.
        warmup_mode: See LRScheduler.

    Raises:
        ValueError: `step` is empty, not increasing or below 1; `factor` above 1.
    """

    def __init__(
        self,
        step: Sequence[int],
        factor: float = 1.0,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: Literal["linear", "constant"] = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        self.step = list(step)
        if not self.step or min(self.step) < 1:
            raise ValueError(
                f"Schedule step must be greater or equal than 1: `step` is {self.step}"
            )
        if any(b <= a for a, b in zip(self.step, self.step[1:], strict=False)):
            raise ValueError(
                f"Schedule step must be an increasing integer list: `step` is {step}"
            )
        _check_factor(factor)
        self.factor = factor
        self.cur_step_ind = 0
        self.count = 0

    def __call__(self, num_update: int) -> float:
        """The learning rate of update number `num_update`."""
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        while (
            self.cur_step_ind < len(self.step)
            and num_update > self.step[self.cur_step_ind]
        ):
            self.count = self.step[self.cur_step_ind]
            self.cur_step_ind += 1
            self.base_lr *= self.factor
            _log_change(num_update, self.base_lr)
        return self.base_lr


class PolyScheduler(LRScheduler):
    """Falls from `base_lr` to `final_lr` by a power of the part still to go.

    Args:
        max_update: Update at which `final_lr` is reached, for good.
        base_lr: See LRScheduler.
        pwr: The power.
        final_lr: Learning rate at the end.
        warmup_steps: See LRScheduler, as for the rest.
        warmup_begin_lr: See LRScheduler.
        warmup_mode: See LRScheduler.

    Raises:
        ValueError: `max_update` is below 1 or within the warm-up.
    """

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        pwr: float = 2,
        final_lr: float = 0.0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: Literal["linear", "constant"] = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        _check_max_update(max_update, warmup_steps)
        self.power = pwr
        self.base_lr_orig = base_lr
        self.max_update = max_update
        self.final_lr = final_lr
        self.max_steps = max_update - warmup_steps

    def __call__(self, num_update: int) -> float:
        """The learning rate of update number `num_update`."""
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        if num_update <= self.max_update:
            left = 1 - (num_update - self.warmup_steps) / self.max_steps
            fall = self.base_lr_orig - self.final_lr
            self.base_lr = self.final_lr + fall * left**self.power
        return self.base_lr


class CosineScheduler(LRScheduler):
    """Falls from `base_lr` to `final_lr` along half a cosine.

    Args:
        max_update: Update at which `final_lr` is reached, for good.
        base_lr: See LRScheduler.
        final_lr: Learning rate at the end.
        warmup_steps: See LRScheduler, as for the rest.
        warmup_begin_lr: See LRScheduler.
        warmup_mode: See LRScheduler.

    Raises:
        ValueError: `max_update` is below 1 or within the warm-up.
    """

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        final_lr: float = 0.0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: Literal["linear", "constant"] = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        _check_max_update(max_update, warmup_steps)
        self.base_lr_orig = base_lr
        self.max_update = max_update
        self.final_lr = final_lr
        self.max_steps = max_update - warmup_steps

    def __call__(self, num_update: int) -> float:
        """The learning rate of update number `num_update`."""
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        if num_update <= self.max_update:
            angle = math.pi * (num_update - self.warmup_steps) / self.max_steps
            fall = self.base_lr_orig - self.final_lr
            self.base_lr = self.final_lr + fall * (1 + math.cos(angle)) / 2
        return self.base_lr


def _check_factor(factor: float) -> None:
    if factor > 1.0:
        raise ValueError(
            f"Factor must be no more than 1 to make lr reduce: `factor` is {factor}"
        )


def _check_max_update(max_update: int, warmup_steps: int) -> None:
    if max_update < 1 or max_update <= warmup_steps:
        raise ValueError(
            "maximum number of updates must be strictly positive and above the "
            f"warm-up: `max_update` is {max_update}, `warmup_steps` {warmup_steps}"
        )


def _log_change(num_update: int, lr: float, stays: bool = False) -> None:
    if stays:
        text = (
            f"Update[{num_update}]: now learning rate arrived at {lr:0.5e}, will not "
            "change in the future"
        )
    else:
        text = f"Update[{num_update}]: Change learning rate to {lr:0.5e}"
    log.DEFAULT.info(text)
