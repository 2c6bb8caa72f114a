"""`as_async`: any iterator or iterable of batches behind the iterator contract."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Sequence
from typing import Any

import trio

from asyncmod import log
from asyncmod.io.batch import DataBatch, DataDesc
from asyncmod.io.fairness import checkpoint
from asyncmod.io.iterator import BatchIterator, DataIter, IteratorError, State, by_parts
from asyncmod.io.readers import END, AsyncReader, Reader
from asyncmod.io.slices import is_sliced, whole
from asyncmod.io.thread_reader import ThreadReader


def as_async(
    source: Any,
    *,
    provide_data: Sequence[DataDesc] | None = None,
    provide_label: Sequence[DataDesc] | None = None,
    batch_size: int | None = None,
) -> BatchIterator:
    """Make `source` an asynchronous iterator of batches.

    A source that keeps the contract already is returned as it is. A synchronous
    one is read in a thread and never blocks the event loop; it may be a DataIter
    with a plain `next`, an iterator, a generator or anything that `iter()` takes.
    `reset` calls the source's own `reset`, or starts it again with `iter()`.

    Args:
        source: An iterator or iterable, asynchronous or not, of DataBatch, of
            objects with `data` and `label`, of lists of such objects (one per device),
            of arrays, or of (data, label) pairs.
        provide_data: Descriptions of the data; the source's own unless given.
        provide_label: Descriptions of the labels; the source's own unless given.
        batch_size: Rows per batch; the source's own unless given.

    Raises:
        TypeError: `source` is not iterable in any of these ways.
    """
    given = (provide_data, provide_label, batch_size)
    if all(value is None for value in given) and _keeps_contract(source):
        contract: BatchIterator = source
        return contract
    return SourceAdapter(
        source, _reader(source), provide_data, provide_label, batch_size
    )


def _keeps_contract(source: Any) -> bool:
    asynchronous = all(
        inspect.iscoroutinefunction(getattr(source, name, None))
        for name in ("next", "reset", "aclose", "__anext__")
    )
    return (
        asynchronous and hasattr(source, "get_state") and hasattr(source, "set_state")
    )


def _reader(source: Any) -> Reader:
    if isinstance(source, DataIter):
        if inspect.iscoroutinefunction(source.next):
            return AsyncReader(source, source.next)
        overridden = type(source).next is not DataIter.next
        return ThreadReader(source, source.next if overridden else by_parts(source))
    if hasattr(source, "__aiter__"):
        return AsyncReader(source)
    if hasattr(source, "__iter__"):
        return ThreadReader(source)
    if hasattr(source, "next"):
        return ThreadReader(source, source.next)
    raise TypeError(
        f"`source` of type {type(source).__name__} is no iterator of batches: it needs "
        "`__aiter__`, `__iter__` or `next`"
    )


class SourceAdapter:
    """A source behind the contract; made by `as_async`."""

    def __init__(
        self,
        source: Any,
        reader: Reader,
        provide_data: Sequence[DataDesc] | None,
        provide_label: Sequence[DataDesc] | None,
        batch_size: int | None,
    ) -> None:
        self.source = source
        self._reader = reader
        self._provide_data = provide_data
        self._provide_label = provide_label
        self._batch_size = batch_size
        self._delivered = 0
        self._to_skip = 0
        self._at_end = False
        self._begin_anew = False
        self._reading = trio.Semaphore(1)

    @property
    def provide_data(self) -> Sequence[DataDesc]:
        return _described(self.source, "provide_data", self._provide_data)

    @property
    def provide_label(self) -> Sequence[DataDesc]:
        if self._provide_label is not None:
            return self._provide_label
        return getattr(self.source, "provide_label", None) or []

    @property
    def batch_size(self) -> int:
        if self._batch_size is not None:
            return self._batch_size
        size = getattr(self.source, "batch_size", None)
        if size is None:
            description = self.provide_data[0]
            layout = getattr(description, "layout", None)
            size = description[1][DataDesc.get_batch_axis(layout)]
        return int(size)

    @property
    def default_bucket_key(self) -> Any:
        return self.source.default_bucket_key

    async def next(self) -> DataBatch:
        """The next batch; StopAsyncIteration at the end and after it.

        Cancelled while a synchronous source is busy, the call returns at once, and
        the batch is the next one delivered.
        """
        await checkpoint()
        try:
            self._reading.acquire_nowait()
        except trio.WouldBlock:
            await self._reading.acquire()
        try:
            return await self._next()
        finally:
            self._reading.release()

    async def _next(self) -> DataBatch:
        if self._at_end:
            raise StopAsyncIteration
        if self._begin_anew or self._to_skip:
            await self._go_to_position()
        item = await self._reader.read()
        if item is END:
            self._at_end = True
            raise StopAsyncIteration
        self._delivered += 1
        if is_sliced(item):
            described = getattr(self, "provide_data", ()), self.provide_label
            with trio.CancelScope(shield=True):  # or the batch would be lost
                item = await whole(item, *described)
        return _as_batch(item)

    async def reset(self) -> None:
        """Begin the next epoch."""
        async with self._reading:
            await self._reader.restart()
            self._delivered = self._to_skip = 0
            self._at_end = self._begin_anew = False

    def get_state(self) -> State:
        """The source's own state, or else the count of batches delivered."""
        if hasattr(self.source, "get_state"):
            return {"source": self.source.get_state(), "at_end": self._at_end}
        delivered = self._delivered + self._to_skip
        return {"delivered": delivered, "at_end": self._at_end}

    def set_state(self, state: State) -> None:
        """Continue from `state`; a source without states is read up to it."""
        self._at_end = state["at_end"]
        if "source" in state:
            self.source.set_state(state["source"])
            return
        self._begin_anew = self._begin_anew or self._delivered > 0
        self._delivered, self._to_skip = 0, state["delivered"]

    async def release(self) -> None:
        """End what was begun, but leave the source open, since others own it.

        A blocked thread is waited for as by `aclose`.
        """
        await self._reader.release()

    async def aclose(self) -> None:
        """Close the source; a blocked thread is waited for up to 5 s, then named."""
        await self._reader.aclose()

    async def _go_to_position(self) -> None:
        """Read up to the position that `set_state` gave."""
        if self._begin_anew:
            await self._reader.restart()
            self._begin_anew = False
        if self._to_skip:
            log.DEFAULT.warning(
                f"{type(self.source).__name__} has no get_state: the {self._to_skip} "
                "batches before the saved position are read and dropped"
            )
        while self._to_skip:
            if await self._reader.read() is END:
                raise IteratorError(
                    f"the source ended {self._to_skip} batches before the saved "
                    "position: give the same data as when the state was saved"
                )
            self._to_skip -= 1
            self._delivered += 1

    def __aiter__(self) -> AsyncIterator[DataBatch]:
        return self

    async def __anext__(self) -> DataBatch:
        return await self.next()

    async def __aenter__(self) -> SourceAdapter:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


def _described(
    source: Any, name: str, given: Sequence[DataDesc] | None
) -> Sequence[DataDesc]:
    descriptions = given if given is not None else getattr(source, name, None)
    if descriptions is None:
        raise IteratorError(
            f"{type(source).__name__} has no `{name}`, so that shapes are not known "
            f"before the first batch: give as_async(source, {name}=[DataDesc(...)])"
        )
    result: Sequence[DataDesc] = descriptions
    return result


def _as_batch(item: Any) -> DataBatch:
    if isinstance(item, DataBatch):
        return item
    if hasattr(item, "__array__") or hasattr(item, "__dlpack__"):
        return DataBatch([item])
    if isinstance(item, list | tuple) and len(item) in (1, 2):
        data, label = (*item, None)[:2]
        return DataBatch(_as_list(data) or [], _as_list(label))
    if hasattr(item, "data"):
        batch: DataBatch = item
        return batch
    raise IteratorError(
        f"a source yielded a {type(item).__name__}; it must yield DataBatch objects, "
        "arrays or (data, label) pairs"
    )


def _as_list(value: Any) -> list[Any] | None:
    if value is None or isinstance(value, list):
        return value
    return list(value) if isinstance(value, tuple) else [value]
