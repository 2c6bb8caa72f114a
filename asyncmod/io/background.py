"""Where an iterator's background tasks live when it has no `async with`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from runtime.actors import Runtime, current_runtime


class BackgroundTasks(Protocol):
    """What can start a task that outlives the call: a nursery, or a runtime."""

    def start_soon(
        self, async_fn: Callable[..., Awaitable[Any]], /, *args: Any
    ) -> object:
        """Start `async_fn(*args)` as a task of its own."""
        ...


def current_background() -> Runtime | None:
    """The runtime that is open around the running task, or None."""
    return current_runtime()
