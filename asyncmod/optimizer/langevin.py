"""Stochastic gradient Langevin dynamics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zlib import crc32

from asyncmod import random
from asyncmod.optimizer.base import Index, Optimizer, register


@register
class SGLD(Optimizer):
    """SGD with noise, which draws weights from their posterior; as MXNet's SGLD.

    With G = clip(rescale_grad * grad):

        weight += -lr / 2 * (G + wd * weight) + normal(0, sqrt(lr))

    The noise follows from one seed, drawn from `mx.random` at construction, the
    parameter and the count of its updates; saved states continue it.
    """

    rule = "sgld"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._seed = random.draw_seed() >> 11  # a float64 holds 52 bits of it

    def hyper(self, index: Index) -> tuple[float, ...]:
        """See Optimizer."""
        common = self._common(index)
        stream = crc32(str(index).encode())
        step = self._index_update_count[index]
        return *common, float(self._seed), float(stream), float(step)

    def get_state(self) -> dict[str, Any]:
        """See Optimizer; with the seed of the noise."""
        return super().get_state() | {"seed": self._seed}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See Optimizer."""
        super().set_state(state)
        self._seed = state["seed"]
