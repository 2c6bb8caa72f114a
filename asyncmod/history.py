"""History: what `fit` saw, row by row, as data."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import merge
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import trio

from asyncmod.errors import ArgumentError, UnsupportedError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]

BATCH_ROWS = 100_000


@dataclass
class History:
    """Rows of numbers that `fit` collects and returns.

    Everything in it is in the host's memory already when a row is made: recording
    never waits for a device. While `fit` runs, callbacks find it as
    `param.locals["history"]`.

    Attributes:
        epochs: One dict per epoch, in order: `epoch`, `train-<metric>`,
            `validation-<metric>`, `batches`, `samples`, `seconds`, `timing`.
        batches: One dict per batch, in order: `epoch`, `nbatch`, `samples`, seconds of
            `compute` and `reduce`, and `train-<metric>` over the epoch so far. Not
            more than `batch_rows`: beyond, the older half is dropped.
        stopped_by: Why training ended before `num_epoch`: what a callback's
            StopTraining says, "cancelled", or the error; None if it did not.
        timing: Seconds over all epochs: `data` waiting for the iterator, `compute` and
            `reduce` on the slowest device, `metric` with its callbacks.
        batch_rows: How many rows `batches` may have; about 400 bytes each.
        dropped_batches: How many rows were dropped.
        events: One dict per thing that happened besides, in order. A device that died
            and was dropped (`on_worker_death="drop"`) is an `event` "drop", with
            `epoch` and `nbatch` of the batch whose row comes next, `step` (the first
            one without it, counted from 0 as training forwards), `device` and `reason`.
    """

    epochs: list[Row] = field(default_factory=list)
    batches: list[Row] = field(default_factory=list)
    stopped_by: str | None = None
    timing: dict[str, float] = field(default_factory=dict)
    batch_rows: int = BATCH_ROWS
    dropped_batches: int = 0
    events: list[Row] = field(default_factory=list)

    @contextmanager
    def noting_the_end(self) -> Iterator[None]:
        """Note an error or a cancellation that ends what is inside in `stopped_by`."""
        try:
            yield
        except trio.Cancelled:
            self.stopped_by = "cancelled"
            raise
        except Exception as error:
            self.stopped_by = f"{type(error).__name__}: {error}"
            raise

    def add_epoch(self, **values: Any) -> None:
        """Append a row to `epochs`."""
        self.epochs.append(values)

    def add_batch(self, **values: Any) -> None:
        """Append a row to `batches`; beyond `batch_rows` the older half is dropped."""
        self.batches.append(values)
        if len(self.batches) > self.batch_rows:
            half = len(self.batches) // 2
            del self.batches[:half]
            self.dropped_batches += half

    def add_event(self, event: str, **values: Any) -> None:
        """Append a row to `events`."""
        self.events.append({"event": event, **values})

    def to_dict(
        self, rows: Literal["epochs", "batches", "events"] = "epochs"
    ) -> dict[str, list[Any]]:
        """Rows by column: one list per key, None where a row lacks it.

        Args:
            rows: Which rows.

        Raises:
            ArgumentError: `rows` is none of these.
        """
        kinds = {"epochs": self.epochs, "batches": self.batches, "events": self.events}
        if rows not in kinds:
            names = " or ".join(map(repr, kinds))
            raise ArgumentError(f"`rows` is {rows!r}: use {names}")
        found = kinds[rows]
        keys = dict.fromkeys(key for row in found for key in row)
        return {key: [row.get(key) for row in found] for key in keys}

    def write_json_lines(self, path: str | os.PathLike[str]) -> None:
        """Write a line of strict JSON per row, in the order in which they came.

        Each row has a `kind`, "batch", "epoch" or "event"; numbers that are not finite
        are null, since JSON has none. The call blocks: with very many rows, in an async
        program, write `await trio.to_thread.run_sync(history.write_json_lines, path)`.

        Args:
            path: The file; what it held is replaced.

        Raises:
            OSError: it cannot be written.
        """
        with open(path, "w", encoding="utf-8") as file:
            for row in self._in_order():
                file.write(json.dumps(_plain(row), allow_nan=False) + "\n")

    def plot(self) -> Figure:
        """Draw every metric over the epochs, training and validation, with matplotlib.

        Returns:
            A figure, which `savefig(path)` writes and notebooks show.

        Raises:
            UnsupportedError: matplotlib is not installed.
            ArgumentError: there is no epoch to draw.
        """
        names = self._metrics()
        if not names:
            raise ArgumentError(
                "the history has no epoch with a metric: nothing to draw"
            )
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise UnsupportedError(
                "plot() needs matplotlib, which is not installed: "
                "pip install 'asyncmod[plot]', or draw what to_dict() gives"
            ) from None
        figure = Figure(figsize=(6.4, 3.2 * len(names)), layout="constrained")
        axes = figure.subplots(len(names), squeeze=False, sharex=True)[:, 0]
        for axis, name in zip(axes, names, strict=True):
            for part in ("train", "validation"):
                key = f"{part}-{name}"
                told = [row for row in self.epochs if key in row]
                if told:
                    values = [row[key] for row in told]
                    numbers = [row["epoch"] for row in told]
                    axis.plot(numbers, values, marker="o", label=part)
            axis.set_ylabel(name)
            axis.legend()
        axes[-1].set_xlabel("epoch")
        axes[-1].locator_params("x", integer=True)
        return figure

    def _metrics(self) -> list[str]:
        """Names of the metrics that the epochs have."""
        keys = [key.partition("-") for row in self.epochs for key in row]
        found = (n for part, _, n in keys if part in ("train", "validation") and n)
        return list(dict.fromkeys(found))

    def _in_order(self) -> Iterator[Row]:
        """All rows: a batch behind its events, an epoch behind its batches."""
        return merge(
            _of_kind("event", self.events),
            _of_kind("batch", self.batches),
            _of_kind("epoch", self.epochs),
            key=lambda row: (row["epoch"], row.get("nbatch", math.inf)),
        )


def _of_kind(kind: str, rows: Iterable[Row]) -> Iterator[Row]:
    return ({"kind": kind, **row} for row in rows)


def _plain(value: Any) -> Any:
    """A value of a row as JSON knows it."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
