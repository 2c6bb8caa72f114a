"""The step's length follows from the norms of each parameter: LAMB and LARS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncmod.optimizer.base import Index, Optimizer, register
from asyncmod.optimizer.settings import (
    bound_or_none,
    check_bound,
    check_finite,
    check_share,
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
