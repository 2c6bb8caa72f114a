"""Relatives of SGD: Nesterov momentum, signs of gradients, delayed gradients."""

from __future__ import annotations

from typing import Any

from asyncmod.optimizer.base import Index, Optimizer, register
from asyncmod.optimizer.settings import check_finite


@register
class NAG(Optimizer):
    """Nesterov's accelerated gradient; with G = clip(rescale_grad * grad), as MXNet's
    nag_mom_update, whose momentum decays by the new weight:

        m = momentum * mom
        new = weight - m + (1 + momentum) * (m - lr * (G + wd * weight))
        mom = m - lr * (G + wd * new);  weight = new

    Args:
        momentum: Share of the last step that is repeated; 0 makes it SGD.
        **kwargs: See Optimizer.
    """

    rule = "nag"

    def __init__(self, momentum: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = check_finite("momentum", momentum)

    @property
    def state_names(self) -> tuple[str, ...]:
        """("momentum",), or nothing without momentum."""
        return ("momentum",) if self.momentum else ()

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        return *self._common(index), self.momentum


@register
class Signum(Optimizer):
    """Steps of equal length by the sign of the momentum.

    With G = clip(rescale_grad * grad), as MXNet's signum_update and signsgd_update:

        mom = momentum * mom - (1 - momentum) * (G + wd * weight)
        weight = (1 - lr * wd_lh) * weight + lr * sign(mom)
        weight = (1 - lr * wd) * weight - lr * sign(grad)        without momentum

    Args:
        learning_rate: Length of the steps.
        momentum: Share of the momentum that is kept; 0 keeps no state.
        wd_lh: Weight decay beside the gradient, of Loshchilov and Hutter.
        **kwargs: See Optimizer.
    """

    rule = "signum"

    def __init__(
        self,
        learning_rate: float | None = 0.01,
        momentum: float = 0.9,
        wd_lh: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.momentum = check_finite("momentum", momentum)
        self.wd_lh = check_finite("wd_lh", wd_lh)

    @property
    def state_names(self) -> tuple[str, ...]:
        """("momentum",), or nothing without momentum."""
        return ("momentum",) if self.momentum else ()

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        return *self._common(index), self.momentum, self.wd_lh


@register
class DCASGD(Optimizer):
    """SGD that makes up for gradients computed from the weight before the last step.

    With G = clip(rescale_grad * grad), as MXNet's DCASGD:

        step = momentum * step - lr * (G + wd * weight + lamda * G**2 * step)
        weight += step

    where the step inside is the weight less the weight before. (MXNet raises as soon
    as there is momentum.)

    Args:
        momentum: Share of the last step that is repeated.
        lamda: How much is made up for.
        **kwargs: See Optimizer.
    """

    rule = "dcasgd"

    def __init__(
        self, momentum: float = 0.0, lamda: float = 0.04, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = check_finite("momentum", momentum)
        self.lamda = check_finite("lamda", lamda)

    @property
    def state_names(self) -> tuple[str, ...]:
        """("step",)."""
        return ("step",)

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        return *self._common(index), self.momentum, self.lamda
