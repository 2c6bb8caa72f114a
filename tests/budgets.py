"""How long each part of the suite may take, and how long it took.

The whole suite is to take less than twelve minutes on two cores. Each part has its
share; what is above it is marked at the end of a run, and does not fail, since the
machine may have been busy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

SECONDS = {
    "tests/asyncmod/cancellation": 90,
    "tests/asyncmod/checkpoint": 70,
    "tests/asyncmod/module": 190,
    "tests/asyncmod/migration": 20,
    "tests/asyncmod": 80,
    "tests/conformance": 30,
    "tests/faults": 60,
    "tests/runtime": 100,
    "tests": 50,
}
"""By folder, in seconds on two idle cores; a file counts for the innermost one."""


class Spent:
    """Adds up what each part has taken."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def add(self, path: str, seconds: float) -> None:
        """Count the time of a phase of a test in this file."""
        part = next((p for p in SECONDS if path.startswith(f"{p}/")), "tests")
        self._seconds[part] += seconds

    def lines(self) -> Iterator[str]:
        """One for each part that has run, the longest first."""
        for part, seconds in sorted(self._seconds.items(), key=lambda item: -item[1]):
            over = "  over its budget" if seconds > SECONDS[part] else ""
            yield f"{seconds:7.1f} s of {SECONDS[part]:3} s  {part}{over}"
