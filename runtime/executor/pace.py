"""How long work takes: what is short enough may do without a device thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from time import perf_counter

SHORT = 5e-4
"""Seconds that the event loop may be held by work while no other task can run."""


class Pace:
    """The time that some repeated work took when it was last done, on any thread.

    Estimates would not do: they are far too high for fast processors.
    """

    def __init__(self) -> None:
        self._seconds = math.inf

    @property
    def is_short(self) -> bool:
        """Whether it was short the last time."""
        return self._seconds < SHORT

    def timed(self, job: Callable[[], None]) -> Callable[[], None]:
        """A job that does the work, and notes the time."""
        return partial(self._run, job)

    def _run(self, job: Callable[[], None]) -> None:
        begin = perf_counter()
        job()
        self._seconds = perf_counter() - begin
