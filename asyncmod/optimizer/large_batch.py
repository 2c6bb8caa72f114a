"""SGD for batches that are larger than what fits a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from asyncmod.optimizer.base import Index, Optimizer, register
from asyncmod.optimizer.settings import OptimizerError, check_finite


@register
class LBSGD(Optimizer):
    """SGD by the mean of several gradients, with a warm-up; as MXNet's LBSGD.

    Every `batch_scale`-th step updates the weight by the mean of the gradients since
    the last update, with the learning rate times a multiplier m; other steps change
    nothing. With T = warmup_epochs * updates_per_epoch, and t the step:

        linear: m = 1 + (batch_scale - 1) * t / T       power2: (t / T)**2
        sqrt: sqrt(t / T)                               all: batch_scale from T on
        lars: m = sqrt(W / (G + wd * W + 1e-18)) between 0.01 and 100, where W and G are
        the sums of the squares of the weight and of the mean gradient

    Args:
        momentum: Share of the last step that is repeated.
        multi_precision: See Optimizer.
        warmup_strategy: "linear", "power2", "sqrt" or "lars".
        warmup_epochs: Epochs of warm-up.
        batch_scale: Gradients per update, at least 1.
        updates_per_epoch: Steps per epoch.
        begin_epoch: Epoch that training begins with.
        num_epochs: Accepted for MXNet's sake; it has no effect.
        **kwargs: See Optimizer.

    Raises:
        OptimizerError: a strategy or a number that cannot be.
    """

    rule = "lbsgd"
    _STRATEGIES: ClassVar[Mapping[str, Any]] = {
        "linear": lambda share: share,
        "power2": lambda share: share**2,
        "sqrt": math.sqrt,
        "lars": None,
    }

    def __init__(
        self,
        momentum: float = 0.0,
        multi_precision: bool = False,
        warmup_strategy: str = "linear",
        warmup_epochs: int = 5,
        batch_scale: int = 1,
        updates_per_epoch: int = 32,
        begin_epoch: int = 0,
        num_epochs: int = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(multi_precision=multi_precision, **kwargs)
        self.momentum = check_finite("momentum", momentum)
        if warmup_strategy not in self._STRATEGIES:
            raise OptimizerError(
                f"`warmup_strategy` must be one of {', '.join(self._STRATEGIES)}, not "
                f"{warmup_strategy!r}"
            )
        if not (math.isfinite(batch_scale) and batch_scale >= 1):
            raise OptimizerError(
                f"`batch_scale` must be at least 1, and it is {batch_scale}"
            )
        self.warmup_strategy = warmup_strategy
        self.warmup_epochs = check_finite("warmup_epochs", warmup_epochs)
        self.batch_scale = batch_scale
        self.updates_per_epoch = check_finite("updates_per_epoch", updates_per_epoch)
        self.init_updates = check_finite("begin_epoch", begin_epoch) * updates_per_epoch
        self.num_epochs = num_epochs

    @property
    def state_names(self) -> tuple[str, ...]:
        """("collected", "momentum"), the second only with momentum."""
        return ("collected", "momentum") if self.momentum else ("collected",)

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer; as in MXNet the schedule is asked before counting."""
        lr = self._get_lr(index)
        self._update_count(index)
        count = self._index_update_count[index] - self.begin_num_update
        step = self.init_updates + count
        return (
            lr * self._multiplier_at(step),
            self._get_wd(index),
            self.rescale_grad,
            self._clip(),
            self.momentum,
            float(self.batch_scale),
            float(step % self.batch_scale == 0),
            float(self.warmup_strategy == "lars"),
        )

    def _multiplier_at(self, step: float) -> float:
        warmup = self.warmup_epochs * self.updates_per_epoch
        growth = self._STRATEGIES[self.warmup_strategy]
        if growth is None:
            return 1.0
        if step >= warmup:
            return float(self.batch_scale)
        if warmup <= 1:
            return 1.0
        return float(1 + (self.batch_scale - 1) * growth(step / warmup))
