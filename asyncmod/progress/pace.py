"""Counting batches and samples, and when it is time to show them."""

from __future__ import annotations

import math
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncmod.module.metrics import Metric


class Pace:
    """Counts of one epoch, and samples per second since they were shown last.

    Args:
        seconds: How much time is at least between two showings.
        batches: Batches per epoch; 0 if that is not known.

    Attributes:
        done: Batches of this epoch so far.
        total: Batches of the epoch: of the one before, or what was announced; 0 if
            unknown.
        speed: Samples per second, as of the last showing.
    """

    def __init__(self, seconds: float, batches: int) -> None:
        self.done = 0
        self.total = batches
        self.speed = 0.0
        self._seconds = seconds
        self._samples = 0
        self._shown = self._counted_from = perf_counter()

    def begin_epoch(self, nbatch: int = 0) -> None:
        """An epoch is over, or the first begins, with batch `nbatch`."""
        if self.done:
            self.total = self.done
        self.done = nbatch
        self._samples = 0
        self._counted_from = perf_counter()

    def batch(self, samples: int) -> bool:
        """Count a batch; whether it is time to show it."""
        self.done += 1
        self.total = max(self.total, self.done) if self.total else 0
        self._samples += samples
        return self.due()

    def due(self) -> bool:
        """Whether it is time to show something; then the next time is set."""
        now = perf_counter()
        if now - self._shown < self._seconds:
            return False
        if self._samples:
            passed = now - self._counted_from
            self.speed = self._samples / passed if passed > 0 else math.inf
        self._samples = 0
        self._shown = self._counted_from = now
        return True


def told(metric: Metric, between: str) -> str:
    """`accuracy=0.910000` and the like, of the epoch so far."""
    values = metric.get_global_name_value()
    return between.join(f"{name}={value:f}" for name, value in values)
