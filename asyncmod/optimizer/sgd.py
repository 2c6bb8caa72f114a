"""Stochastic gradient descent with momentum; and the optimizer for tests."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncmod.optimizer.base import Array, Index, Optimizer, register
from asyncmod.optimizer.settings import check_finite


@register
class SGD(Optimizer):
    """Gradient descent with momentum and weight decay.

    With G = clip(rescale_grad * grad), as MXNet's sgd_mom_update and sgd_update:

        mom = momentum * mom - lr * wd * weight - lr * G;  weight += mom
        weight = (1 - lr * wd) * weight - lr * G                 without momentum

    Args:
        momentum: Share of the last step that is repeated; 0 keeps no state.
        lazy_update: Where a gradient is row-sparse, update only the rows that it has,
            states and weight decay included; otherwise all rows.
        **kwargs: See Optimizer.
    """

    rule = "sgd"

    def __init__(
        self, momentum: float = 0.0, lazy_update: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = check_finite("momentum", momentum)
        self.lazy_update = lazy_update
        # What `hyper_rows` gave last, behind everything that it follows from.
        self._rows: tuple[Any, Any, NDArray[np.float64]] | None = None

    @property
    def state_names(self) -> tuple[str, ...]:
        """("momentum",), or nothing without momentum."""
        return ("momentum",) if self.momentum else ()

    def hyper(self, index: Index) -> tuple[float, ...]:
        """(lr, wd, rescale_grad, clip_gradient or -1, momentum), after counting."""
        return *self._common(index), self.momentum

    def hyper_rows(self, indexes: Sequence[Index]) -> NDArray[np.float64]:
        """See Optimizer; as long as nothing changes, made only once."""
        if type(self) is not SGD or self.lr_scheduler is not None or self.param_dict:
            return super().hyper_rows(indexes)
        self._update_count(indexes)
        numbers = (self.lr, self.wd, self.rescale_grad, self._clip(), self.momentum)
        names = (self.lr_mult, self.wd_mult, self.idx2name, indexes)
        known = self._rows
        if known is None or known[0] != numbers or known[1] != names:
            lr, wd, *others = numbers
            rows = [
                (
                    lr * self._multiplier(index, "lr_mult", self.lr_mult),
                    wd * self._multiplier(index, "wd_mult", self.wd_mult),
                    *others,
                )
                for index in indexes
            ]
            table = np.array(rows, np.float64)
            known = self._rows = numbers, tuple(copy(name) for name in names), table
        return known[2]


@register
class Test(Optimizer):
    """weight += rescale_grad * grad, and remembers the weight; for tests."""

    __test__ = False  # not a test case, whatever its name

    def create_state(self, index: Index, weight: Array) -> Array:
        """Zeros of the weight's shape."""
        return np.zeros_like(weight)

    def update(self, index: Index, weight: Array, grad: Array, state: Any) -> None:
        """One step on one parameter, in place."""
        weight += grad * self.rescale_grad
        state[...] = weight


Optimizer.opt_registry["ccsgd"] = SGD
ccSGD = SGD
