"""How `as_async` reads its source: the contract, and the asynchronous sources."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from asyncmod.io.iterator import IteratorError

END = object()
"""Stands for the end of the epoch."""


class Reader(Protocol):
    """Reads items one by one, starts again, and closes."""

    async def read(self) -> Any: ...

    async def restart(self) -> None: ...

    async def release(self) -> None:
        """End what was begun, and leave the source open for others."""
        ...

    async def aclose(self) -> None: ...


class AsyncReader:
    """Reads an asynchronous iterator or iterable in the calling task."""

    def __init__(
        self, source: Any, advance: Callable[[], Awaitable[Any]] | None = None
    ) -> None:
        self._source = source
        self._advance = advance
        self._iterator: Any = None
        self._exhausted = False
        self._broken = False

    async def read(self) -> Any:
        if self._exhausted:
            raise read_once(self._source)
        if self._broken:
            raise IteratorError(
                "reading this asynchronous generator was cancelled, which ended it: "
                "reset it, or read it through PrefetchingIter, whose `next` may be "
                "cancelled"
            )
        try:
            if self._advance is not None:
                return await self._advance()
            if self._iterator is None:
                self._iterator = self._source.__aiter__()
            return await self._iterator.__anext__()
        except StopAsyncIteration:
            return END
        except trio.Cancelled:
            self._broken = inspect.isasyncgen(self._iterator)
            raise

    async def restart(self) -> None:
        self._broken = False
        if hasattr(self._source, "reset"):
            result = self._source.reset()
            if inspect.isawaitable(result):
                await result
            self._iterator = None
            return
        once = self._iterator is self._source
        await self._close_iterator()
        self._iterator, self._exhausted = None, once

    async def release(self) -> None:
        if self._iterator is not self._source:
            await self._close_iterator()
            self._iterator = None

    async def aclose(self) -> None:
        await self._close_iterator()
        close = getattr(self._source, "aclose", None)
        if close is not None and self._iterator is not self._source:
            await close()

    async def _close_iterator(self) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


def read_once(source: Any) -> IteratorError:
    return IteratorError(
        f"{type(source).__name__} can be read only once, and a second epoch was asked "
        "for: give an iterable (an object whose `__iter__` starts anew) or one with "
        "`reset()`"
    )
