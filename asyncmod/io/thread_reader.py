"""ThreadReader: a synchronous source, read beside the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from asyncmod import log
from asyncmod.io.iterator import DataIter
from asyncmod.io.readers import END, read_once
from asyncmod.io.thread_call import ThreadCall

CLOSE_DEADLINE = 5.0
"""Seconds that `aclose` waits for a source that blocks in its thread."""


class ThreadReader:
    """Reads a synchronous source in a thread, one call at a time.

    A call that nobody waits for any more goes on; what it reads is the next item.
    """

    def __init__(self, source: Any, advance: Callable[[], Any] | None = None) -> None:
        self._source = source
        self._advance = advance
        self._iterator: Any = None
        self._exhausted = False
        self._reading: ThreadCall[Any] | None = None
        self._changing: ThreadCall[Any] | None = None

    async def read(self) -> Any:
        if self._exhausted:
            raise read_once(self._source)
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._finish_change()
        if self._reading is None:
            self._reading = self._in_thread(self._read_now)
        await self._reading.finished()
        call, self._reading = self._reading, None
        return call.take()

    async def restart(self) -> None:
        if hasattr(self._source, "reset"):
            await self._change(self._source.reset)
        else:
            await self._drop_reading()
            self._exhausted = self._iterator is self._source
        self._iterator = None

    async def release(self) -> None:
        own = self._iterator if self._iterator is not self._source else None
        await self._close(own)
        self._iterator = None

    async def aclose(self) -> None:
        await self._close(self._iterator, self._source)

    async def _close(self, *targets: Any) -> None:
        with trio.move_on_after(CLOSE_DEADLINE, shield=True) as scope:
            await self._drop_reading()
            for target in targets:
                if hasattr(target, "close") and not isinstance(target, DataIter):
                    await self._change(target.close)
        if scope.cancelled_caught:
            log.DEFAULT.warning(
                f"closed without waiting any longer for {type(self._source).__name__}, "
                f"which has blocked its thread for {CLOSE_DEADLINE:g} s"
            )

    def _read_now(self) -> Any:
        try:
            if self._advance is not None:
                return self._advance()
            if self._iterator is None:
                self._iterator = iter(self._source)
            return next(self._iterator)
        except StopIteration:
            return END

    async def _change(self, function: Callable[[], Any]) -> None:
        """Call the source's `reset` or `close`, when it is not being read."""
        await self._drop_reading()
        await self._finish_change()
        self._changing = self._in_thread(function)
        await self._finish_change()

    async def _finish_change(self) -> None:
        if self._changing is not None:
            await self._changing.finished()
            call, self._changing = self._changing, None
            call.take()

    async def _drop_reading(self) -> None:
        if self._reading is not None:
            await self._reading.finished()
            self._reading = None

    def _in_thread(self, function: Callable[[], Any]) -> ThreadCall[Any]:
        return ThreadCall(function, f"asyncmod read {type(self._source).__name__}")
