"""The scope that owns device threads, background tasks and modules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from runtime.context import DeviceId


class Closable(Protocol):
    """Something that a runtime closes before its devices."""

    async def aclose(self) -> None: ...


class Runtime:
    """Owns one actor per device, and closes everything when its scope ends."""

    def register(self, owned: Closable) -> None:
        """Close `owned` with the runtime, newest first."""
        raise NotImplementedError

    def unregister(self, owned: Closable) -> None:
        """Forget something that was closed by itself; unknown things are ignored."""
        raise NotImplementedError

    def start_soon(
        self, function: Callable[..., Awaitable[object]], *args: Any, name: str = ""
    ) -> None:
        """Run a background task that ends with the runtime at the latest."""
        raise NotImplementedError

    def actor(self, device_id: DeviceId) -> Any:
        """The device's actor; its thread starts on first use."""
        raise NotImplementedError


@asynccontextmanager
async def open_runtime(*, deadline: float = 10.0) -> AsyncIterator[Runtime]:
    """Open a runtime for the body of an `async with`.

    Args:
        deadline: Seconds that closing may take; what still blocks then is named in a
            log line and left to itself.
    """
    raise NotImplementedError
    yield


def current_runtime() -> Runtime | None:
    """The innermost runtime that is open around the running task."""
    raise NotImplementedError
