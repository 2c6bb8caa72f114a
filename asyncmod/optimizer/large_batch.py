"""Optimizers for large batches: the step's length follows from the weight's norm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from asyncmod.optimizer.base import (
    Index,
    Optimizer,
    OptimizerError,
    bound_or_none,
    check_bound,
    check_finite,
    check_share,
    register,
)

_RATES = 16  # steps whose learning rates LARS remembers


@register
class LAMB(Optimizer):
    """Adam with a trust ratio per parameter; as MXNet's lamb_update.

    With G = clip(rescale_grad * grad), mean and variance of it as in Adam, and norms
    over the whole parameter:

        step = mean' / (sqrt(variance') + epsilon) + wd * weight
        weight -= lr * clip(norm(weight), lower_bound, upper_bound) / norm(step) * step

    mean' and variance' are divided by 1 - beta**t with bias correction. The ratio is 1
    if one of the norms is 0.

    Args:
        learning_rate: Size of the steps.
        beta1, beta2: Shares that the means keep.
        epsilon: Added to the root, against division by zero.
        lower_bound, upper_bound: Bounds of the weight's norm; None and 0 mean none.
        bias_correction: Whether the means are corrected.
        **kwargs: See Optimizer.
    """

    rule = "lamb"

    def __init__(
        self,
        learning_rate: float | None = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        lower_bound: float | None = None,
        upper_bound: float | None = None,
        bias_correction: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1 = check_share("beta1", beta1)
        self.beta2 = check_share("beta2", beta2)
        self.epsilon = check_finite("epsilon", epsilon)
        self.lower_bound = check_bound("lower_bound", lower_bound)
        self.upper_bound = check_bound("upper_bound", upper_bound)
        self.bias_correction = bias_correction

    @property
    def state_names(self) -> tuple[str, ...]:
        """("mean", "variance")."""
        return ("mean", "variance")

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        common = self._common(index)
        corrections = 1.0, 1.0
        if self.bias_correction:
            t = self._index_update_count[index]
            corrections = 1 - self.beta1**t, 1 - self.beta2**t
        return (
            *common,
            *(self.beta1, self.beta2, self.epsilon),
            *corrections,
            *(bound_or_none(self.lower_bound), bound_or_none(self.upper_bound)),
        )


@register
class LARS(Optimizer):
    """SGD with a learning rate per parameter; as MXNet's LARS.

    Parameters whose names end neither in gamma, nor beta, nor bias get the rate

        lr * eta * norm(weight) / (norm(rescale_grad * grad) + wd * norm(weight) + eps)

    if both norms are positive; then as SGD. Weight decay is for names that end in
    `_weight`.

    Args:
        momentum: Share of the last step that is repeated; 0 keeps no state.
        lazy_update: Accepted for MXNet's sake; it concerns row-sparse gradients only.
        eta: The trust coefficient.
        eps: Added to the denominator.
        momentum_correction: Scale the momentum by this step's learning rate over that
            of the step before. (Where MXNet updates parameters one by one, only the
            first of them has it; here all have.)
        **kwargs: See Optimizer.
    """

    rule = "lars"
    decaying = ("_weight",)

    def __init__(
        self,
        momentum: float = 0.0,
        lazy_update: bool = True,
        eta: float = 0.001,
        eps: float = 0.0,
        momentum_correction: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = check_finite("momentum", momentum)
        self.lazy_update = lazy_update
        self.eta = check_finite("eta", eta)
        self.eps = check_finite("eps", eps)
        self.momentum_correction = momentum_correction
        # By num_update, so that a step that is taken back is forgotten.
        self._rates: dict[int, float] = {}

    @property
    def state_names(self) -> tuple[str, ...]:
        """("momentum",), or nothing without momentum."""
        return ("momentum",) if self.momentum else ()

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        common = self._common(index)
        name = self.idx2name.get(index, str(index))
        adapts = not name.endswith(("gamma", "beta", "bias"))
        return *common, self._momentum(), self.eta, self.eps, float(adapts)

    def get_state(self) -> dict[str, Any]:
        """See Optimizer; with the learning rates of the last steps."""
        return super().get_state() | {"rates": list(self._rates.items())}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See Optimizer."""
        super().set_state(state)
        self._rates = dict(state["rates"])

    def _momentum(self) -> float:
        if not self.momentum_correction:
            return self.momentum
        step, rate = self.num_update, self.learning_rate
        before = {n: self._rates[n] for n in sorted(self._rates) if n < step}
        last = next(reversed(before.values()), rate)
        self._rates = {n: before[n] for n in [*before][-_RATES:]} | {step: rate}
        return self.momentum * rate / last if last else self.momentum


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
