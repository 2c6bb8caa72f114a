"""Progress on a terminal: a bar of rich's, drawn at most ten times a second.

It is drawn by the training task between two batches, never from a thread of its own,
and goes to standard error. Trainings that run at once share the screen, a bar each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import TaskID

from asyncmod.progress.pace import Pace, told
from asyncmod.progress.screen import Screen, shared_screen

if TYPE_CHECKING:
    from asyncmod.module.callbacks import BatchEndParam
    from asyncmod.module.metrics import Metric
    from asyncmod.progress.display import Outline

SECONDS = 0.1
"""Between two drawings."""


@contextmanager
def drawn(outline: Outline) -> Iterator[Bar]:
    """A bar on the screen; its last state stays there."""
    with shared_screen() as screen:
        bar = Bar(screen, outline)
        try:
            yield bar
        finally:
            bar.finish()


class Bar:
    """One row of the screen, for one training.

    Args:
        screen: What it is drawn on.
        outline: What is known of the training.
    """

    def __init__(self, screen: Screen, outline: Outline) -> None:
        self._screen = screen
        self._outline = outline
        self._pace = Pace(SECONDS, outline.batches)
        self._metric: Metric | None = None
        self._epoch = ""
        self._row: TaskID = screen.progress.add_task("", total=None, count="", told="")

    def begin_epoch(self, epoch: int, nbatch: int) -> None:
        """Begin again; drawn if it is time, since epochs may be short."""
        number = epoch - self._outline.begin_epoch + 1
        last = self._outline.num_epoch - self._outline.begin_epoch
        self._epoch = f"Epoch {number}/{last}"
        self._pace.begin_epoch(nbatch)
        if self._pace.due():
            self._draw("")

    def batch(self, samples: int, metric: Metric) -> None:
        """Draw if it is time."""
        self._metric = metric
        if self._pace.batch(samples):
            self._draw()

    def validation_batch(self, param: BatchEndParam) -> None:
        """Draw if it is time."""
        if self._pace.due():
            self._draw(f"validation batch {param.nbatch + 1}")

    def finish(self) -> None:
        """Draw the last state."""
        self._draw()
        self._screen.progress.stop_task(self._row)

    def _draw(self, instead: str | None = None) -> None:
        text = instead
        if text is None:
            text = f"{self._pace.speed:,.0f} samples/s"
            if self._metric is not None:
                text += "  " + told(self._metric, "  ")
        done, total = self._pace.done, self._pace.total
        self._screen.progress.update(
            self._row,
            description=self._epoch,
            completed=done,
            total=total or None,
            count=f"{done}/{total}" if total else str(done),
            told=text,
            refresh=True,
        )
