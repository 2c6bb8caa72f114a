"""One measurement, in a process of its own: options in, one JSON line out.

Every script of the benchmark uses this, so that all are timed alike.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from statistics import fmean

from workloads import WORKLOADS

# A sample is as many steps as take this long, in seconds: clocks and schedulers
# are too coarse for less.
SAMPLE = 0.015
WARM_UP_STEPS = 3
FEWEST_SAMPLES = 5


@dataclass(frozen=True)
class Options:
    """What one process measures.

    Attributes:
        workload: A key of `WORKLOADS`.
        mode: "train" (forward, backward, update) or "predict" (forward alone).
        threads: How many threads may compute.
        seconds: How long to take samples.
        variant: Which way of using the library; each script knows its own.
    """

    workload: str
    mode: str
    threads: int
    seconds: float
    variant: str

    @property
    def training(self) -> bool:
        return self.mode == "train"


def read_options() -> Options:
    """The options of this process, from its command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--mode", choices=("train", "predict"), default="train")
    parser.add_argument("--threads", type=int, choices=(1, 2), default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--variant", default="default")
    return Options(**vars(parser.parse_args()))


@dataclass
class Clock:
    """Times a loop body: `for steps in clock:` run that many steps and wait for them.

    Serves synchronous and asynchronous bodies alike, since the time between two
    turns of the loop is what counts.

    Attributes:
        overlapping: Whether a step may still be under way at the end of a turn. A
            sample is longer or shorter for that, and only their mean counts.
    """

    seconds: float
    overlapping: bool = False
    first: float = 0.0
    steps: int = 1
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __iter__(self) -> Iterator[int]:
        self.first = yield from self._timed(1)
        yield WARM_UP_STEPS
        while (took := (yield from self._quickest_of_three())) < SAMPLE:
            # A little more than needed, so that this ends soon.
            self.steps = math.ceil(self.steps * 1.2 * SAMPLE / took)
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end or len(self.wall) < FEWEST_SAMPLES:
            wall, cpu = time.perf_counter(), time.process_time()
            yield self.steps
            self.wall.append((time.perf_counter() - wall) / self.steps)
            self.cpu.append((time.process_time() - cpu) / self.steps)

    def _quickest_of_three(self) -> Generator[int, None, float]:
        """One alone may be disturbed, and then looks long enough."""
        quickest = math.inf
        for _ in range(3):
            quickest = min(quickest, (yield from self._timed(self.steps)))
        return quickest

    @property
    def best(self) -> float:
        """Seconds per step."""
        return fmean(self.wall) if self.overlapping else min(self.wall)

    @staticmethod
    def _timed(steps: int) -> Generator[int, None, float]:
        begin = time.perf_counter()
        yield steps
        return time.perf_counter() - begin


def report(library: str, version: str, options: Options, clock: Clock) -> None:
    """Print the measurement as one JSON line; times are milliseconds per step."""
    best = clock.best
    line = {
        "library": library,
        "version": version,
        "workload": options.workload,
        "mode": options.mode,
        "threads": options.threads,
        "variant": options.variant,
        "ms_min": round(best * 1e3, 5),
        "ms_median": round(sorted(clock.wall)[len(clock.wall) // 2] * 1e3, 5),
        # The cores kept busy: tells a run that used more threads than it was given.
        "cores": round(fmean(clock.cpu) / fmean(clock.wall), 2),
        "samples_per_second": round(WORKLOADS[options.workload].batch / best, 1),
        "first_step_ms": round(clock.first * 1e3, 1),
        "steps_per_sample": clock.steps,
        "samples": len(clock.wall),
        # Linux counts in KiB.
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(line), flush=True)
