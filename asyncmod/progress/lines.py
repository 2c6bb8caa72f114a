"""Progress where there is no terminal: a line to the logger every ten seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncmod.log import Logger
from asyncmod.progress.pace import Pace, told

if TYPE_CHECKING:
    from asyncmod.module.callbacks import BatchEndParam
    from asyncmod.module.metrics import Metric
    from asyncmod.progress.display import Outline

SECONDS = 10.0
"""Between two lines."""


class Lines:
    """Logs lines such as `Epoch[0] Batch[120/600]	Speed: 1595.40 samples/sec	...`.

    Args:
        outline: What is known of the training.
        logger: Where the lines go.
    """

    def __init__(self, outline: Outline, logger: Logger) -> None:
        self._logger = logger
        self._pace = Pace(SECONDS, outline.batches)
        self._epoch = outline.begin_epoch

    def begin_epoch(self, epoch: int, nbatch: int) -> None:
        """Count anew."""
        self._epoch = epoch
        self._pace.begin_epoch(nbatch)

    def batch(self, samples: int, metric: Metric) -> None:
        """Log a line if it is time."""
        if not self._pace.batch(samples):
            return
        total = f"/{self._pace.total}" if self._pace.total else ""
        values = told(metric, "\t")
        self._logger.info(
            f"Epoch[{self._epoch}] Batch[{self._pace.done}{total}]"
            f"\tSpeed: {self._pace.speed:.2f} samples/sec\t{values}"
        )

    def validation_batch(self, param: BatchEndParam) -> None:
        """Log a line if it is time."""
        if self._pace.due():
            self._logger.info(
                f"Epoch[{self._epoch}] Validation batch[{param.nbatch + 1}]"
            )
