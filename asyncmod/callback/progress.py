"""Callbacks that log the metric after a batch or an evaluation, in MXNet's words.

Those of batches have `reports_progress`: with one of them `fit` shows no progress of
its own unless it is told to.
"""

from __future__ import annotations

import math
from time import perf_counter
from typing import ClassVar

from asyncmod.log import DEFAULT, Logger
from asyncmod.module.callbacks import BatchEndParam


class log_train_metric:
    """A batch-end callback that logs the metric every `period` batches.

    Args:
        period: Batches between two lines; the first is logged at batch 0.
        auto_reset: Clear the metric's local sums after each line.
        logger: Where the lines go; to the module's logger unless given.
    """

    reports_progress: ClassVar[bool] = True

    def __init__(
        self, period: int, auto_reset: bool = False, logger: Logger | None = None
    ) -> None:
        self.period = period
        self.auto_reset = auto_reset
        self._logger = logger

    def __call__(self, param: BatchEndParam) -> None:
        """Log a line per value if it is time."""
        if param.nbatch % self.period or param.eval_metric is None:
            return
        for name, value in param.eval_metric.get_name_value():
            _target(self._logger, param).info(
                f"Iter[{param.epoch}] Batch[{param.nbatch}] Train-{name}={value:f}"
            )
        if self.auto_reset:
            param.eval_metric.reset_local()


class Speedometer:
    """A batch-end callback that logs samples per second, and the metric.

    Args:
        batch_size: Samples per batch.
        frequent: Batches between two lines.
        auto_reset: Clear the metric's local sums after each line, so that each shows
            the batches since the one before.
        logger: Where the lines go; to the module's logger unless given.
    """

    reports_progress: ClassVar[bool] = True

    def __init__(
        self,
        batch_size: int,
        frequent: int = 50,
        auto_reset: bool = True,
        logger: Logger | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.frequent = frequent
        self.auto_reset = auto_reset
        self._logger = logger
        self._began: float | None = None
        self._last_count = 0

    def __call__(self, param: BatchEndParam) -> None:
        """Log a line if it is time; the first call only starts the clock."""
        count = param.nbatch
        if count < self._last_count:  # a new epoch
            self._began = None
        self._last_count = count
        if self._began is None:
            self._began = perf_counter()
        elif count % self.frequent == 0:
            _target(self._logger, param).info(
                self._line(param, perf_counter() - self._began)
            )
            self._began = perf_counter()

    def _line(self, param: BatchEndParam, seconds: float) -> str:
        samples = self.frequent * self.batch_size
        speed = samples / seconds if seconds > 0 else math.inf
        text = f"\tSpeed: {speed:.2f} samples/sec"
        if param.eval_metric is None:
            return f"Iter[{param.epoch}] Batch [{param.nbatch}]{text}"
        for name, value in param.eval_metric.get_name_value():
            text += f"\t{name}={value:f}"
        begin = 0
        if self.auto_reset:
            param.eval_metric.reset_local()
            begin = param.nbatch - self.frequent
        return f"Epoch[{param.epoch}] Batch [{begin}-{param.nbatch}]{text}"


class ProgressBar:
    """A batch-end callback that logs a bar.

    Args:
        total: Batches per epoch.
        length: Characters of the bar.
        logger: Where the bars go; to the module's logger unless given.
    """

    reports_progress: ClassVar[bool] = True

    def __init__(
        self, total: int, length: int = 80, logger: Logger | None = None
    ) -> None:
        self.total = total
        self.bar_len = length
        self._logger = logger

    def __call__(self, param: BatchEndParam) -> None:
        """Log the bar."""
        share = param.nbatch / self.total
        filled = round(self.bar_len * share)
        bar = "=" * filled + "-" * (self.bar_len - filled)
        _target(self._logger, param).info(f"[{bar}] {math.ceil(100.0 * share)}%\r")


class LogValidationMetricsCallback:
    """An evaluation-end callback that logs the metric.

    Args:
        logger: Where the lines go; to the module's logger unless given.
    """

    def __init__(self, logger: Logger | None = None) -> None:
        self._logger = logger

    def __call__(self, param: BatchEndParam) -> None:
        """Log one line per value."""
        if not param.eval_metric:
            return
        for name, value in param.eval_metric.get_name_value():
            _target(self._logger, param).info(
                f"Epoch[{param.epoch}] Validation-{name}={value:f}"
            )


def _target(given: Logger | None, param: BatchEndParam) -> Logger:
    """The logger that was given, or that of the module which calls back."""
    if given is not None:
        return given
    module = param.locals.get("self") if param.locals else None
    logger: Logger = getattr(module, "logger", DEFAULT)
    return logger
