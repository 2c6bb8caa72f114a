"""The scope of a module: its own runtime, or the one that is open around it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType

from asyncmod.errors import ClosedError, ScopeError
from asyncmod.trio_task import check_trio
from runtime.actors import Runtime, current_runtime, open_runtime
from runtime.actors.runtime import Closable


class Scope:
    """Finds the runtime that a module lives in, and opens one if it is entered.

    Args:
        owned: The module; the runtime closes it.
    """

    def __init__(self, owned: Closable) -> None:
        self._owned = owned
        self._runtime: Runtime | None = None
        self._stack: AsyncExitStack | None = None
        self.closed = False

    async def enter(self) -> None:
        """Open a runtime unless one is open here, and belong to it.

        Raises:
            ScopeError: outside Trio.
            ClosedError: the module was closed before.
        """
        self.check_open("async with")
        check_trio("`async with` on a module")
        if self._stack is not None:
            raise ScopeError("the module is entered already; it can be entered once")
        self._stack = AsyncExitStack()
        if self._runtime is None:
            runtime = current_runtime()
            if runtime is None:
                runtime = await self._stack.enter_async_context(open_runtime())
            self._belong_to(runtime)

    async def leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the runtime if `enter` opened it."""
        if self._stack is not None:
            await self._stack.__aexit__(exc_type, exc, traceback)

    def runtime(self, call: str) -> Runtime:
        """The runtime that the module belongs to, joined at the first call.

        Args:
            call: The member that needs it, for the error.

        Raises:
            ScopeError: outside Trio, or no runtime is open.
            ClosedError: the module was closed.
        """
        self.check_open(call)
        if self._runtime is None:
            check_trio(f"`{call}`")
            runtime = current_runtime()
            if runtime is None:
                raise ScopeError(
                    f"`{call}` was called on a module outside any runtime: write "
                    "`async with mx.Module(...) as mod:`, or run the program with "
                    "`mx.run(main)`, or open `async with mx.open_runtime():` around it"
                )
            self._belong_to(runtime)
        assert self._runtime is not None
        return self._runtime

    def check_open(self, call: str) -> None:
        """Raise ClosedError if the module was closed."""
        if self.closed:
            raise ClosedError(
                f"`{call}` was called on a module that is closed: its `async with` or "
                "its runtime has ended; make a new module (get_params before the end "
                "keeps what was learned)"
            )

    def close(self) -> None:
        """The module is closed; the runtime need not close it any more."""
        self.closed = True
        if self._runtime is not None:
            self._runtime.unregister(self._owned)

    def _belong_to(self, runtime: Runtime) -> None:
        self._runtime = runtime
        runtime.register(self._owned)
