"""What shows the progress of a `fit`, and the choice of it.

Displays are told what the training task has anyway: counts, and metric values that are
in the host's memory. They never ask a device for anything.

Next: `asyncmod.progress.bar` for terminals, `asyncmod.progress.lines` elsewhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import trio

from asyncmod.log import Logger
from asyncmod.progress.lines import Lines

if TYPE_CHECKING:
    from asyncmod.module.callbacks import BatchEndParam, Callback
    from asyncmod.module.metrics import Metric


class Display(Protocol):
    """What the training loop tells, as it happens."""

    def begin_epoch(self, epoch: int, nbatch: int) -> None:
        """Training of an epoch begins, or goes on, with batch `nbatch`."""
        ...

    def batch(self, samples: int, metric: Metric) -> None:
        """The metric has counted a training batch of that many real samples."""
        ...

    def validation_batch(self, param: BatchEndParam) -> None:
        """A batch of the validation has been scored."""
        ...


class Silent:
    """Shows nothing."""

    def begin_epoch(self, epoch: int, nbatch: int) -> None:
        """Nothing."""

    def batch(self, samples: int, metric: Metric) -> None:
        """Nothing."""

    def validation_batch(self, param: BatchEndParam) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Outline:
    """What is known of a training before it begins.

    Attributes:
        begin_epoch: Number of the first epoch.
        num_epoch: Number after the last epoch.
        batches: Batches per epoch; 0 if the data do not say.
    """

    begin_epoch: int
    num_epoch: int
    batches: int = 0


@asynccontextmanager
async def shown(
    progress: bool | None,
    callbacks: Sequence[Callback],
    outline: Outline,
    logger: Logger,
) -> AsyncIterator[Display]:
    """The display for one `fit`; what is on the screen is left tidy.

    Args:
        progress: Whether to show anything; None: unless a callback reports progress.
        callbacks: The batch-end callbacks.
        outline: What is known of the training.
        logger: Where lines go if there is no bar.
    """
    if progress is None:
        progress = not any(_reports_progress(callback) for callback in callbacks)
    if not progress:
        yield Silent()
    elif not _can_draw(sys.stderr):
        yield Lines(outline, logger)
    else:
        # rich takes longer to import than the event loop may be blocked.
        bar = await trio.to_thread.run_sync(_import_bar)
        with bar.drawn(outline) as display:
            yield display


def _reports_progress(callback: Callback) -> bool:
    """Whether a callback says so itself; MXNet's loggers do."""
    return bool(getattr(callback, "reports_progress", False))


def _can_draw(stream: Any) -> bool:
    return (
        stream is not None
        and stream.isatty()
        and os.environ.get("TERM") not in ("dumb", "unknown")
        and find_spec("rich") is not None
    )


def _import_bar() -> Any:
    from asyncmod.progress import bar

    return bar
