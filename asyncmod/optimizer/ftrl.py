"""Follow the regularized leader."""

from __future__ import annotations

from typing import Any

from asyncmod.optimizer.base import Index, Optimizer, register
from asyncmod.optimizer.settings import check_finite, check_learning_rate


@register
class Ftrl(Optimizer):
    """Weights that are exactly zero where there is little to say; as MXNet's Ftrl.

    With G = clip(rescale_grad * grad), as ftrl_update:

        leader += G - (sqrt(squares + G**2) - sqrt(squares)) * weight / lr
        squares += G**2
        weight = (sign(leader) * lamda1 - leader) / ((beta + sqrt(squares)) / lr + wd)
        weight = 0                                     where abs(leader) <= lamda1

    Args:
        lamda1: How much there must be to say.
        learning_rate: Size of the steps; a scheduler keeps its own.
        beta: Damping of the first steps.
        **kwargs: See Optimizer.
    """

    rule = "ftrl"
    lazy_update = True

    def __init__(
        self,
        lamda1: float = 0.01,
        learning_rate: float = 0.1,
        beta: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lamda1 = check_finite("lamda1", lamda1)
        self.beta = check_finite("beta", beta)
        self.lr = check_learning_rate(learning_rate)

    @property
    def state_names(self) -> tuple[str, ...]:
        """("leader", "squares")."""
        return ("leader", "squares")

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        return *self._common(index), self.lamda1, self.beta
