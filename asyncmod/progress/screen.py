"""The part of the terminal that bars are drawn on, below everything else.

While it is open, what the program prints, and what handlers of `logging` write to this
terminal, appears above the bars; afterwards all is as before.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@dataclass
class Screen:
    """Bars that are drawn together.

    Attributes:
        progress: The rows.
        users: How many trainings draw on it.
    """

    progress: Progress
    users: int = 0


_screen: Screen | None = None
_closing = ExitStack()


@contextmanager
def shared_screen() -> Iterator[Screen]:
    """The screen of this process; opened for the first user, closed after the last."""
    global _screen
    if _screen is None:
        _screen = _closing.enter_context(_open())
    screen = _screen
    screen.users += 1
    try:
        yield screen
    finally:
        screen.users -= 1
        if screen.users == 0:
            _screen = None
            _closing.close()


@contextmanager
def _open() -> Iterator[Screen]:
    error, output = sys.stderr, sys.stdout
    # What goes into a pipe or a file must go on to do so.
    prints_here = output is not None and output.isatty()
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        console=Console(file=error),
        auto_refresh=False,
        redirect_stdout=prints_here,
        redirect_stderr=True,
    )
    with progress, _handlers_above([error, output] if prints_here else [error]):
        yield Screen(progress)


@contextmanager
def _handlers_above(streams: list[Any]) -> Iterator[None]:
    """Let log handlers that write to `streams` write above the bars."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    moved = [
        (handler, handler.stream)
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream in streams
    ]
    for handler, _ in moved:
        handler.setStream(sys.stderr)  # by now rich's
    try:
        yield
    finally:
        for handler, stream in moved:
            handler.setStream(stream)
