"""Adam and its relatives: running means of the gradient and of its square."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncmod.optimizer.base import Index, Optimizer, register
from asyncmod.optimizer.settings import check_finite, check_share


@register
class Adam(Optimizer):
    """Running means of the gradient and of its square; as MXNet's adam_update.

    With g = clip(rescale_grad * grad + wd * weight) and t the count of updates:

        mean = beta1 * mean + (1 - beta1) * g
        variance = beta2 * variance + (1 - beta2) * g**2
        weight -= lr * sqrt(1 - beta2**t) / (1 - beta1**t)
                  * mean / (sqrt(variance) + epsilon)

    Args:
        learning_rate: Size of the steps.
        beta1, beta2: Shares that the means keep.
        epsilon: Added to the root, against division by zero.
        lazy_update: Where a gradient is row-sparse, update only the rows that it has,
            states and weight decay included; otherwise all rows.
        **kwargs: See Optimizer.
    """

    rule = "adam"

    def __init__(
        self,
        learning_rate: float | None = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        lazy_update: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1 = check_share("beta1", beta1)
        self.beta2 = check_share("beta2", beta2)
        self.epsilon = check_finite("epsilon", epsilon)
        self.lazy_update = lazy_update

    @property
    def state_names(self) -> tuple[str, ...]:
        """("mean", "variance")."""
        return ("mean", "variance")

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer; the learning rate holds the corrections of both means."""
        lr, *others = self._common(index)
        t = self._index_update_count[index]
        lr *= math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
        return lr, *others, self.beta1, self.beta2, self.epsilon


@register
class Adamax(Optimizer):
    """Adam by the largest gradient instead of the mean square; as MXNet's Adamax.

    With g = clip(rescale_grad * grad + wd * weight) and t the count of updates:

        mean = beta1 * mean + (1 - beta1) * g
        largest = max(beta2 * largest, abs(g))
        weight -= lr / (1 - beta1**t) * mean / largest

    A weight whose gradient was always zero stays as it is (in MXNet it becomes NaN).

    Args:
        learning_rate: Size of the steps.
        beta1, beta2: Shares that are kept.
        **kwargs: See Optimizer.
    """

    rule = "adamax"

    def __init__(
        self,
        learning_rate: float | None = 0.002,
        beta1: float = 0.9,
        beta2: float = 0.999,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1 = check_share("beta1", beta1)
        self.beta2 = check_share("beta2", beta2)

    @property
    def state_names(self) -> tuple[str, ...]:
        """("mean", "largest")."""
        return ("mean", "largest")

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer; the learning rate holds the correction of the mean."""
        lr, *others = self._common(index)
        lr /= 1 - self.beta1 ** self._index_update_count[index]
        return lr, *others, self.beta1, self.beta2


@register
class Nadam(Optimizer):
    """Adam with Nesterov momentum on a schedule; as MXNet's Nadam.

    With g, mean and variance as in Adam:

        m(t) = beta1 * (1 - 0.5 * 0.96**(t * schedule_decay))
        ahead = (1 - m(t)) * g / (1 - P) + m(t + 1) * mean / (1 - P * m(t + 1))
        weight -= lr * ahead / (sqrt(variance / (1 - beta2**t)) + epsilon)

    P is the product of all m so far, and as in MXNet of all parameters together.

    Args:
        learning_rate: Size of the steps.
        beta1, beta2: Shares that the means keep.
        epsilon: Added to the root, against division by zero.
        schedule_decay: How fast the momentum grows to beta1.
        **kwargs: See Optimizer.
    """

    rule = "nadam"

    def __init__(
        self,
        learning_rate: float | None = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        schedule_decay: float = 0.004,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1 = check_share("beta1", beta1)
        self.beta2 = check_share("beta2", beta2)
        self.epsilon = check_finite("epsilon", epsilon)
        self.schedule_decay = check_finite("schedule_decay", schedule_decay)
        # The product of one parameter's schedule, by its number of updates.
        self._products = [1.0]

    @property
    def state_names(self) -> tuple[str, ...]:
        """("mean", "variance")."""
        return ("mean", "variance")

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer; the schedule follows from the counts alone."""
        return self._row(index, Counter(self._index_update_count.values()))

    def hyper_rows(self, indexes: Sequence[Index]) -> NDArray[np.float64]:
        """See Optimizer; parameters are counted once for all rows."""
        done = Counter(self._index_update_count.values())
        return np.array([self._row(index, done) for index in indexes], np.float64)

    def _row(self, index: Index, done: Counter[int]) -> tuple[float, ...]:
        """`hyper`, where `done` tells how many parameters have which count."""
        counts = self._index_update_count
        if index in counts:
            done[counts[index]] -= 1
        common = self._common(index)
        t = counts[index]
        done[t] += 1
        return (
            *common,
            *(self.beta1, self.beta2, self.epsilon),
            *(self._momentum(t), self._momentum(t + 1), self._product(done)),
            1 - self.beta2**t,
        )

    def _momentum(self, t: int) -> float:
        return float(self.beta1 * (1 - 0.5 * 0.96 ** (t * self.schedule_decay)))

    def _product(self, done: Counter[int]) -> float:
        begin, products = self.begin_num_update, self._products
        while begin + len(products) <= max(done):
            products.append(products[-1] * self._momentum(begin + len(products)))
        return math.prod(products[t - begin] ** done[t] for t in sorted(done))


@register
class FTML(Optimizer):
    """Follow the moving leader; as MXNet's ftml_update.

    With g = clip(rescale_grad * grad + wd * weight), t the count of updates, and the
    variance as in Adam:

        scale' = (1 - beta1**t) / lr * (sqrt(variance / (1 - beta2**t)) + epsilon)
        leader = beta1 * leader + (1 - beta1) * g - (scale' - beta1 * scale) * weight
        weight = -leader / scale';  scale = scale'

    Args:
        beta1, beta2: Shares that are kept.
        epsilon: Added to the root, against division by zero.
        **kwargs: See Optimizer.
    """

    rule = "ftml"

    def __init__(
        self,
        beta1: float = 0.6,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.beta1 = check_share("beta1", beta1)
        self.beta2 = check_share("beta2", beta2)
        self.epsilon = check_finite("epsilon", epsilon)

    @property
    def state_names(self) -> tuple[str, ...]:
        """("scale", "variance", "leader")."""
        return ("scale", "variance", "leader")

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        common = self._common(index)
        t = self._index_update_count[index]
        return (
            *common,
            *(self.beta1, self.beta2, self.epsilon),
            *(1 - self.beta1**t, 1 - self.beta2**t),
        )
