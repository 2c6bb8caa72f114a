"""One blocking call in a worker thread, whose result survives a cancelled wait."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from typing import Generic, TypeVar

import outcome
import trio

T = TypeVar("T")


class ThreadCall(Generic[T]):
    """Start `function()` in a worker thread at once.

    Waiting may be cancelled and repeated; the thread goes on to its end, since
    nothing can stop it, and the result waits for whoever takes it.

    Args:
        function: Called in the thread, with the context variables of this task.
        name: What the thread is called while it runs.
    """

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self.name = name
        self._done = trio.Event()
        self._result: outcome.Outcome[T] | None = None
        token = trio.lowlevel.current_trio_token()

        def deliver(result: outcome.Outcome[T]) -> None:
            self._result = result
            with contextlib.suppress(trio.RunFinishedError):  # nobody waits any more
                token.run_sync_soon(self._done.set)

        context = contextvars.copy_context()
        trio.lowlevel.start_thread_soon(lambda: context.run(function), deliver, name)

    @property
    def is_done(self) -> bool:
        """Whether the thread is done."""
        return self._done.is_set()

    async def finished(self) -> None:
        """Wait until the thread is done; cancelling leaves it running."""
        await self._done.wait()

    def take(self) -> T:
        """The function's result, or its exception raised here."""
        assert self._result is not None, "take() comes after finished()"
        return self._result.unwrap()
