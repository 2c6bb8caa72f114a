"""Batches under way: dispatched in order, finished in order, none left behind.

Used by `asyncmod.module.epoch`, `score` and `predict`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import trio

from asyncmod.errors import ArgumentError
from asyncmod.io.adapter import SourceAdapter, as_async
from asyncmod.io.batch import DataBatch
from asyncmod.io.iterator import BatchIterator
from asyncmod.io.slices import is_sliced, whole
from asyncmod.module.batches import Array, as_array
from asyncmod.module.metrics import LARGE
from asyncmod.module.step import Step

T = TypeVar("T")


@dataclass(slots=True)
class Flight:
    """A batch under way.

    Attributes:
        nbatch: Its number in the epoch.
        batch: The batch; an iterator may have reused its arrays by now.
        labels: Its labels, safe from the iterator.
        pad: Rows at its end that only fill it up.
        step: The work on it.
        has_outputs: Whether its outputs were asked for, since a metric reads them.
        counted: Whether the metric has counted it.
    """

    nbatch: int
    batch: Any
    labels: Sequence[Array]
    pad: int
    step: Step
    has_outputs: bool = True
    counted: bool = False


class Flights(deque[Flight]):
    """The batches under way, oldest first."""

    async def settle(self) -> None:
        """Withdraw or await what is left, newest first; cannot be cancelled."""
        while self:
            await self.pop().step.settle()


async def next_batch(batches: BatchIterator) -> DataBatch:
    """The next batch, joined if it comes as one batch per device."""
    batch: Any = await batches.next()
    if is_sliced(batch):
        batch = await whole(batch, batches.provide_data, batches.provide_label)
    read: DataBatch = batch
    return read


async def keep_labels(batch: Any) -> list[Array]:
    """Copies of a batch's labels; in a thread if they have more than 1 MB."""
    given = getattr(batch, "label", None)
    if not given:
        return []
    labels = [as_array(f"label {i}", label) for i, label in enumerate(given)]
    if sum([label.nbytes for label in labels]) > LARGE:
        return await trio.to_thread.run_sync(_copies, labels)
    return _copies(labels)


def _copies(arrays: Sequence[Array]) -> list[Array]:
    return [array.copy() for array in arrays]


async def at_batch(work: Awaitable[T], nbatch: int, epoch: int | None = None) -> T:
    """Await work on a batch; what it raises gets a note of which batch it was."""
    try:
        return await work
    except Exception as error:
        note_batch(error, nbatch, epoch)
        raise


def note_batch(error: Exception, nbatch: int, epoch: int | None = None) -> None:
    """Add to an error which batch it was about."""
    where = "" if epoch is None else f" of epoch {epoch}"
    error.add_note(f"at batch {nbatch}{where}, counted from 0")


def padding(batch: Any) -> int:
    """Rows at the end of a batch that only fill it up; 0 if it does not say."""
    return getattr(batch, "pad", None) or 0


def limit(num_batch: int | None) -> float:
    """`num_batch` as a bound: None and negative numbers mean all batches."""
    return float("inf") if num_batch is None or num_batch < 0 else num_batch


def check_in_flight(in_flight: int, most: int) -> int:
    """Raise ArgumentError unless so many batches may be under way at once."""
    if in_flight not in range(1, most + 1):
        raise ArgumentError(f"`in_flight` must be from 1 to {most}, not {in_flight}")
    return in_flight


@asynccontextmanager
async def reading(source: Any) -> AsyncIterator[BatchIterator]:
    """Any iterator of batches behind the contract; the source itself stays open."""
    batches = as_async(source)
    try:
        yield batches
    finally:
        if isinstance(batches, SourceAdapter) and batches is not source:
            with trio.CancelScope(shield=True):
                await batches.release()
