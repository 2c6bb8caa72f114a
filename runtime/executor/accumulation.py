"""Updates that are made of several batches: whose gradients add up, and to what.

The batches of one update are the parts of an `Accumulation`. Each device adds its
gradients to an accumulator of its own, which lies as the gradients do; the update
reads the accumulators instead of the gradients. The first part overwrites them, so
that nothing is left of an accumulation that was given up.

Next: `runtime.executor.collective`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


class Accumulation:
    """The batches that one update is made of.

    Attributes:
        size: How many there are normally.
        begun: How many parts have been given out.
        failed: The number of a part that failed, if one did: then there is no update.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.begun = 0
        self.failed: int | None = None

    def next(self) -> Part:
        """The part of one more batch; that of the last one updates."""
        self.begun += 1
        updates = self.begun == self.size
        return Part(self, self.begun, adds=True, updates=updates)

    def rest(self) -> Part:
        """An update by the batches so far, where no more come."""
        return Part(self, self.begun + 1, adds=False, updates=True)

    @property
    def waits(self) -> bool:
        """Whether batches have been added that no update has used."""
        return 0 < self.begun < self.size


@dataclass(frozen=True, eq=False)
class Part:
    """What a step does for an accumulation.

    Attributes:
        accumulation: What it is a part of.
        number: Its position, from 1 on; the first one begins the sums anew.
        adds: Whether it adds its gradients.
        updates: Whether it then updates, by the mean over the batches.
    """

    accumulation: Accumulation
    number: int
    adds: bool
    updates: bool

    def fail(self) -> None:
        """This part was not, or not everywhere, added."""
        known = self.accumulation.failed
        if known is None or self.number < known:
            self.accumulation.failed = self.number

    def retry(self) -> None:
        """This part is done again, and all after it."""
        known = self.accumulation.failed
        if known is not None and known >= self.number:
            self.accumulation.failed = None

    @property
    def follows_failure(self) -> bool:
        """Whether a part before this one has failed."""
        failed = self.accumulation.failed
        return failed is not None and failed < self.number

    @property
    def share(self) -> float:
        """What the sums are multiplied by for the mean."""
        return 1 / self.accumulation.begun


class Averaged:
    """The numbers of an update by the mean of several batches, made anew if need be."""

    def __init__(self) -> None:
        self._given: Numbers | None = None
        self._share = 1.0
        self._made: Numbers | None = None

    def __call__(self, numbers: Numbers, column: int, part: Part) -> Numbers:
        """The numbers with one column multiplied by the part's share."""
        if part.share == 1:
            return numbers
        if (
            self._made is None
            or self._given is not numbers
            or self._share != part.share
        ):
            self._given, self._share = numbers, part.share
            self._made = numbers.copy()
            self._made[:, column] *= part.share
        return self._made
