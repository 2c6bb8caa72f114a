"""Checkpoint: where, when and how `fit` saves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Literal, get_args

from asyncmod.errors import ArgumentError

Mode = Literal["auto", "min", "max"]
OnError = Literal["raise", "log"]
WhenBusy = Literal["wait", "skip"]
CHOICES = {"mode": Mode, "on_error": OnError, "when_busy": WhenBusy}


@dataclass(frozen=True)
class Checkpoint:
    """Where, when and how `fit(checkpoint=...)` saves.

    Files are `PREFIX-NNNN.asyncmod`; the number counts the batches that have been
    applied. Without any `every_*` a checkpoint is saved after every epoch. At the end
    of `fit`, and when a signal ends it, one is saved in any case.

    Args:
        prefix: Path and beginning of the files' names; the folder must exist.
        every_batches: Save after so many batches, counted over all epochs.
        every_seconds: Save after the first batch that ends so long after the last save.
        every_epochs: Save after so many epochs.
        keep_last: How many of the latest files are kept; None keeps all.
        keep_every: Keep for good the first file of every so many batches.
        keep_best: Keep also the file with the best value of this name, such as
            "accuracy": of the validation, or of the training without one.
        mode: Whether small (`min`) or large (`max`) values are good; `auto` knows it of
            MXNet's metrics.
        on_error: "raise" ends the training when a file cannot be written; "log" goes
            on, with a warning.
        when_busy: What to do when a file is due while the one before is still being
            written: "wait" for it, or "skip" the new one.

    Raises:
        ArgumentError: a number is not positive, or a choice is unknown.
    """

    prefix: str | PathLike[str]
    every_batches: int | None = None
    every_seconds: float | None = None
    every_epochs: int | None = None
    keep_last: int | None = 3
    keep_every: int | None = None
    keep_best: str | None = None
    mode: Mode = "auto"
    on_error: OnError = "raise"
    when_busy: WhenBusy = "wait"

    def __post_init__(self) -> None:
        for name in ("every_batches", "every_epochs", "keep_last", "keep_every"):
            _check_positive(name, getattr(self, name), int)
        _check_positive("every_seconds", self.every_seconds, float)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(map(repr, get_args(choices)))
                given = getattr(self, name)
                raise ArgumentError(f"`{name}` is {given!r}: use one of {known}")
        if self.every_batches is self.every_seconds is self.every_epochs is None:
            object.__setattr__(self, "every_epochs", 1)

    def path(self, number: int) -> str:
        """The file of a number."""
        return f"{fspath(self.prefix)}-{number:04d}.asyncmod"


def _check_positive(name: str, value: float | None, kind: type) -> None:
    if value is None:
        return
    fits = isinstance(value, int | kind) and not isinstance(value, bool)
    if not (fits and 0 < value < math.inf):
        what = "an integer" if kind is int else "a number"
        raise ArgumentError(
            f"`{name}` is {value!r}: it must be {what} above 0, or None"
        )
