"""A module that lives in a scope: entered with `async with`, or closed by a runtime.

Next: `asyncmod.module.scope`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import trio

from asyncmod.module.base import BaseModule
from asyncmod.module.scope import Scope

CLOSE_DEADLINE = 10.0
"""Seconds that leaving `async with` waits for calls that still run."""


class ScopedModule(BaseModule):
    """A module that holds something that must be freed.

    Enter it with `async with`, which closes it; or use it under `mx.run` or
    `mx.open_runtime`, which then close it.

    Args:
        logger: A `logging.Logger` or a structlog logger.

    Attributes:
        scope: What it lives in.
    """

    def __init__(self, logger: Any = None) -> None:
        super().__init__(logger)
        self.scope = Scope(self)

    async def __aenter__(self) -> Self:
        await self.scope.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with trio.move_on_after(CLOSE_DEADLINE, shield=True) as closing:
                await self.aclose()
            if closing.cancelled_caught:
                self.logger.warning(
                    "a module was closed without waiting any longer for its devices, "
                    f"which have been busy for {CLOSE_DEADLINE:g} s"
                )
        finally:
            await self.scope.leave(exc_type, exc, traceback)

    async def aclose(self) -> None:
        """Free the executors. Idempotent; every later call raises ClosedError.

        Waits for the calls that were made before. Cancelled, it frees them all the
        same, later.
        """
        if self.scope.closed:
            return
        self.scope.close()
        self.binded = False
        await self._free()

    async def _free(self) -> None:
        """Free what the module holds; called once."""

    def _need_bound(self, call: str) -> None:
        self.scope.check_open(call)
        super()._need_bound(call)
