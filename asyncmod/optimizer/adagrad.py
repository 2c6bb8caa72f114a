"""Optimizers whose steps are scaled by the squares of the gradients so far."""

from __future__ import annotations

from typing import Any

from asyncmod.optimizer.base import Array, Index, Optimizer, register
from asyncmod.optimizer.settings import (
    OptimizerError,
    bound_or_none,
    check_bound,
    check_finite,
    check_share,
)


@register
class AdaGrad(Optimizer):
    """Scaled by the sum of squares; as MXNet's AdaGrad.

    With G = clip(rescale_grad * grad):

        history += G**2
        weight -= lr * (G / sqrt(history + eps) + wd * weight)

    Args:
        eps: Added under the root, against division by zero.
        **kwargs: See Optimizer.
    """

    rule = "adagrad"
    lazy_update = True

    def __init__(self, eps: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.float_stable_eps = check_finite("eps", eps)

    @property
    def state_names(self) -> tuple[str, ...]:
        """("history",)."""
        return ("history",)

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        return *self._common(index), self.float_stable_eps


@register
class GroupAdaGrad(Optimizer):
    """AdaGrad with one scale per row of a matrix; as MXNet's GroupAdaGrad.

    With G = clip(rescale_grad * grad):

        history += mean(G**2, axis=1)
        weight -= lr * G / sqrt(history + eps)

    The history has the weight's shape, equal within a row.

    Args:
        eps: Added under the root, against division by zero.
        **kwargs: See Optimizer; `wd` must be 0.

    Raises:
        OptimizerError: there is weight decay.
    """

    rule = "groupadagrad"
    lazy_update = True

    def __init__(self, eps: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.float_stable_eps = check_finite("eps", eps)
        if self.wd:
            raise OptimizerError(
                f"GroupAdaGrad has no weight decay: `wd` must be 0, not {self.wd}"
            )

    @property
    def state_names(self) -> tuple[str, ...]:
        """("history",)."""
        return ("history",)

    def create_state(self, index: Index, weight: Array) -> Any:
        """Zeros of the weight's shape.

        Raises:
            OptimizerError: the weight is no matrix.
        """
        if weight.ndim != 2:
            raise OptimizerError(
                f"GroupAdaGrad updates matrices only, and `{index}` has shape "
                f"{weight.shape}"
            )
        return super().create_state(index, weight)

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        return *self._common(index), self.float_stable_eps


@register
class AdaDelta(Optimizer):
    """Scaled by running means of squares of gradients and steps; as MXNet's AdaDelta.

    With G = clip(rescale_grad * grad):

        gradients = rho * gradients + (1 - rho) * G**2
        step = sqrt(steps + epsilon) / sqrt(gradients + epsilon) * G
        steps = rho * steps + (1 - rho) * step**2
        weight -= step + wd * weight

    The learning rate is not used.

    Args:
        rho: Share that the means keep.
        epsilon: Added under the roots; also what the first steps come from.
        **kwargs: See Optimizer.
    """

    rule = "adadelta"

    def __init__(self, rho: float = 0.90, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rho = check_share("rho", rho)
        self.epsilon = check_finite("epsilon", epsilon)

    @property
    def state_names(self) -> tuple[str, ...]:
        """("gradients", "steps")."""
        return ("gradients", "steps")

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        return *self._common(index), self.rho, self.epsilon


@register
class RMSProp(Optimizer):
    """Scaled by a running mean of squares; as MXNet's RMSProp.

    With g = clip(rescale_grad * grad + wd * weight), as rmsprop_update:

        squares = gamma1 * squares + (1 - gamma1) * g**2
        weight -= lr * g / sqrt(squares + epsilon)

    and centered (Graves, 2013), as rmspropalex_update:

        mean = gamma1 * mean + (1 - gamma1) * g
        step = gamma2 * step - lr * g / sqrt(squares - mean**2 + epsilon)
        weight += step

    Args:
        learning_rate: Size of the steps.
        gamma1: Share that the means keep.
        gamma2: Share of the last step that is repeated, if centered.
        epsilon: Added under the root, against division by zero.
        centered: Scale by the variance instead of the mean square.
        clip_weights: Weights are cut off at plus and minus this; None and 0: not.
        **kwargs: See Optimizer.
    """

    rule: str | None = "rmsprop"

    def __init__(
        self,
        learning_rate: float | None = 0.001,
        gamma1: float = 0.9,
        gamma2: float = 0.9,
        epsilon: float = 1e-8,
        centered: bool = False,
        clip_weights: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.gamma1 = check_share("gamma1", gamma1)
        self.gamma2 = check_finite("gamma2", gamma2)
        self.epsilon = check_finite("epsilon", epsilon)
        self.centered = centered
        self.clip_weights = check_bound("clip_weights", clip_weights)
        if centered:
            self.definition = "rmsprop_centered"
            self.rule = self.definition if self.rule else None

    @property
    def state_names(self) -> tuple[str, ...]:
        """("squares",), or ("squares", "mean", "step")."""
        return ("squares", "mean", "step") if self.centered else ("squares",)

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        shares = (self.gamma1, self.gamma2) if self.centered else (self.gamma1,)
        bound = bound_or_none(self.clip_weights)
        return *self._common(index), *shares, self.epsilon, bound
