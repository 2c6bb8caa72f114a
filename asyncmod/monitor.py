"""`mx.mon`: statistics of everything inside a net, every so many batches.

`tic` before a batch and `toc` after it say which batches are looked at; a monitored
call computes its batch once more, unfused, on the device threads, where the statistics
are made. `fit(monitor=...)` does all that by itself.

Next: `asyncmod.module.monitoring` for the modules' side, `runtime.executor.observation`
for the second pass.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import numpy as np

from asyncmod import log
from asyncmod.errors import ArgumentError
from asyncmod.nd import NDArray

Row = tuple[int, str, str]
Result = tuple[int, str, Any]
StatFunc = Callable[[NDArray], Any]


class Monitored(Protocol):
    """What a monitor can be installed on: modules and executors."""

    def install_monitor(self, mon: Any) -> None: ...


def root_mean_square(x: NDArray) -> np.float32:
    """MXNet's default statistic, norm(x) / sqrt(size), summed in float64."""
    return np.float32(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


class Monitor:
    """Reports a statistic of arguments, outputs of operators and their gradients.

    It never changes what is computed. Only `forward`, `backward` and `step`, and with
    them `fit`, are monitored; arguments are shown as the batch found them. The first
    pass over a batch is the usual one, the second runs in NumPy and may be much slower;
    batches that are not monitored cost nothing.

    Args:
        interval: Batches from one monitored batch to the next.
        stat_func: From an array to a number, an array, or a list of these. It is called
            on device threads, once at a time, and must not keep or change its argument.
        pattern: Regular expression that names must match from their beginning.
        sort: Whether results are sorted by name.
        monitor_all: Also report what operators read: `fc_data`, `fc_backward_input0`.
        logger: Where `toc_print` writes to.

    Attributes:
        step: Batches seen so far.
        activated: Whether the current batch is monitored.

    Raises:
        ArgumentError: `interval` is not positive.
    """

    def __init__(
        self,
        interval: int,
        stat_func: StatFunc | None = None,
        pattern: str = ".*",
        sort: bool = False,
        monitor_all: bool = False,
        *,
        logger: Any = None,
    ) -> None:
        if interval < 1:
            raise ArgumentError(
                f"`interval` (={interval}) must be at least 1: the number of batches "
                "from one monitored batch to the next"
            )
        self.interval = interval
        self.stat_func = stat_func or root_mean_square
        self.re_prog = re.compile(pattern)
        self.sort = sort
        self.monitor_all = monitor_all
        self.logger = logger if logger is not None else log.DEFAULT
        self.step = 0
        self.activated = False
        self.queue: list[Result] = []
        self._arguments: dict[Hashable, list[Result]] = {}
        self._computing = threading.Lock()

    @property
    def is_due(self) -> bool:
        """Whether the next `tic` activates the monitor."""
        return self.step % self.interval == 0

    def install(self, exe: Monitored) -> None:
        """Monitor a module or an executor; the same as `exe.install_monitor(self)`."""
        exe.install_monitor(self)

    def tic(self) -> None:
        """A batch begins; monitor it if it is its turn."""
        if self.is_due:
            self._clear()
            self.activated = True
        self.step += 1

    def toc(self) -> list[Row]:
        """A batch ends.

        Returns:
            (number of the batch from 1, name, value as text) in the order in which the
            values were computed, arguments and auxiliary states last; [] if the batch
            was not monitored.
        """
        if not self.activated:
            return []
        rows = self.queue + [row for rows in self._arguments.values() for row in rows]
        self._clear()
        self.activated = False
        if self.sort:
            rows.sort(key=lambda row: row[1])
        return [(step, name, _text(value)) for step, name, value in rows]

    def toc_print(self) -> None:
        """`toc`, with each result logged."""
        for step, name, text in self.toc():
            self.logger.info(f"Batch: {step:7d} {name:30s} {text:s}")

    def wants(self, name: str, *, is_input: bool) -> bool:
        """Whether a value of this name is to be reported."""
        if is_input and not self.monitor_all:
            return False
        return self.re_prog.match(name) is not None

    def compute(self, value: NDArray) -> Any:
        """The statistic of an array; on any thread."""
        with self._computing:
            return self.stat_func(value)

    def add(self, results: list[Result]) -> None:
        """Append results to those of the current batch."""
        self.queue.extend(results)

    def set_arguments(self, source: Hashable, results: list[Result]) -> None:
        """Results for the arguments of one device; the last ones count."""
        self._arguments[source] = results

    def _clear(self) -> None:
        self.queue = []
        self._arguments = {}


def _text(value: Any) -> str:
    """A statistic as MXNet prints it: every part followed by a tab."""
    parts = value if isinstance(value, list) else [value]
    return "".join(f"{_part(part)}\t" for part in parts)


def _part(value: Any) -> str:
    array = np.asarray(value)
    return str(array.reshape(())[()]) if array.shape in ((), (1,)) else str(array)
