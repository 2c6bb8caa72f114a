"""The contract of data iterators, and the base class that users derive from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self

import trio

from asyncmod.io.batch import DataBatch, DataDesc
from runtime.errors import AsyncmodError

State = dict[str, Any]
"""Plain data (dicts with string keys, lists, numbers, strings, None)."""


class IteratorError(AsyncmodError, RuntimeError):
    """An iterator was used against its contract, or its source cannot follow it."""


class BatchIterator(Protocol):
    """What training and prediction read from.

    `provide_data`, `provide_label` and `batch_size` are ready after construction.
    `next` raises StopAsyncIteration at the end of the epoch and at every later
    call until `reset`. A cancelled `next` loses no batch. After
    `set_state(state)` an iterator made in the same way yields exactly what the
    one that gave `state` would have yielded, the epochs after it included.
    """

    @property
    def provide_data(self) -> Sequence[DataDesc]:
        """Descriptions of the data arrays."""
        ...

    @property
    def provide_label(self) -> Sequence[DataDesc]:
        """Descriptions of the label arrays; empty without labels."""
        ...

    @property
    def batch_size(self) -> int:
        """Samples in a batch, padding included."""
        ...

    async def next(self) -> DataBatch:
        """The next batch."""
        ...

    async def reset(self) -> None:
        """Begin the next epoch."""
        ...

    def get_state(self) -> State:
        """Where it stands, as plain data."""
        ...

    def set_state(self, state: State) -> None:
        """Go on from there."""
        ...

    async def aclose(self) -> None:
        """End its tasks and free what it holds; idempotent."""
        ...

    def __aiter__(self) -> AsyncIterator[DataBatch]: ...

    async def __anext__(self) -> DataBatch: ...


class DataIter:
    """Base class of data iterators; derive from it and write `next` and `reset`.

    `async def next(self)` returns a DataBatch or raises StopAsyncIteration. A
    plain `def next(self)` that raises StopIteration, or MXNet's `iter_next` with
    `getdata`, `getlabel`, `getpad` and `getindex`, works too: it is then called in
    a thread. Set or define `provide_data` and `provide_label`.

    Args:
        batch_size: Rows per batch.
    """

    provide_data: Any = ()
    provide_label: Any = ()

    def __init__(self, batch_size: int = 0) -> None:
        self.batch_size = batch_size

    def next(self) -> Any:
        """The next batch; must be overridden, best by an `async def`.

        With `iter_next` instead it is awaitable as it is.
        """
        if type(self).iter_next is DataIter.iter_next:
            raise NotImplementedError(
                f"{type(self).__name__} must define `async def next(self)`, which "
                "returns a DataBatch or raises StopAsyncIteration"
            )
        return _in_thread(by_parts(self))

    def reset(self) -> Any:
        """Begin the next epoch; must be overridden where there is one."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `async def reset(self)`, which begins "
            "the next epoch"
        )

    def iter_next(self) -> bool:
        """MXNet's other style: move to the next batch, False at the end."""
        if type(self).next is not DataIter.next:
            raise NotImplementedError(
                f"{type(self).__name__} has no `iter_next`: `await iterator.next()` "
                "gives a batch, with `data`, `label`, `pad` and `index`"
            )
        raise NotImplementedError(
            f"{type(self).__name__} must define `iter_next(self)`, which moves to the "
            "next batch and returns whether there is one"
        )

    def getdata(self) -> Any:
        """Data arrays of the current batch (with `iter_next`)."""
        return None

    def getlabel(self) -> Any:
        """Label arrays of the current batch (with `iter_next`)."""
        return None

    def getindex(self) -> Any:
        """Row numbers of the current batch (with `iter_next`)."""
        return None

    def getpad(self) -> int:
        """Padding rows of the current batch (with `iter_next`)."""
        return 0

    async def aclose(self) -> None:
        """Give back what the iterator holds; nothing for most. May be repeated."""

    def __aiter__(self) -> AsyncIterator[DataBatch]:
        from asyncmod.io.adapter import as_async

        return as_async(self)

    async def __anext__(self) -> DataBatch:
        batch: DataBatch = await self.next()
        return batch

    def __iter__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is asynchronous: write "
            "`async for batch in iterator:`"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def by_parts(source: DataIter) -> Callable[[], DataBatch]:
    """MXNet's `iter_next` style as one function, which raises StopIteration."""

    def advance() -> DataBatch:
        if not source.iter_next():
            raise StopIteration
        return DataBatch(
            source.getdata(), source.getlabel(), source.getpad(), source.getindex()
        )

    return advance


async def _in_thread(advance: Callable[[], DataBatch]) -> DataBatch:
    def run() -> DataBatch | None:
        try:
            return advance()
        except StopIteration:
            return None

    batch = await trio.to_thread.run_sync(run)
    if batch is None:
        raise StopAsyncIteration
    return batch
