"""The scope that owns device threads, background tasks and modules.

Everything that outlives a call belongs to a runtime: one thread per device, started on
first use, and the tasks of prefetching iterators. When the scope ends, modules are
closed first, newest first, then tasks are cancelled, then the threads end.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import trio

from runtime.actors.actor import DeviceActor
from runtime.actors.affinity import spread
from runtime.actors.blas import single_threaded_blas
from runtime.actors.device_thread import Observer
from runtime.actors.doorbell import Doorbells
from runtime.actors.forks import tell_of_forks
from runtime.actors.supervisor import Supervisor, WorkerPolicy
from runtime.context import DeviceId
from runtime.errors import ClosedError

_current: ContextVar[Runtime | None] = ContextVar("asyncmod_runtime", default=None)


class Closable(Protocol):
    """Something that a runtime closes before its devices."""

    async def aclose(self) -> None: ...


class Runtime:
    """Owns one actor per device, and closes everything when its scope ends.

    Made by `open_runtime`. All methods belong to the Trio thread.

    Attributes:
        closed: Whether its scope has ended: modules refuse calls.
        stopped: Whether the device threads take no commands any more.
        workers: What is borne from worker processes.
        supervisor: Counts their deaths.
    """

    def __init__(
        self, nursery: trio.Nursery, workers: WorkerPolicy | None = None
    ) -> None:
        self.closed = False
        self.stopped = False
        self.workers = workers or WorkerPolicy()
        self.supervisor = Supervisor(policy=self.workers)
        self._nursery = nursery
        self._actors: dict[tuple[DeviceId, int], DeviceActor] = {}
        self._doorbells = Doorbells()
        self._owned: dict[int, Closable] = {}
        self._observe: Observer | None = None
        self._is_copy = False
        tell_of_forks(self)

    def register(self, owned: Closable) -> None:
        """Close `owned` with the runtime, newest first."""
        self.check_open()
        self._owned[id(owned)] = owned

    def unregister(self, owned: Closable) -> None:
        """Forget something that was closed by itself; unknown things are ignored."""
        self._owned.pop(id(owned), None)

    def start_soon(
        self,
        function: Callable[..., Awaitable[object]],
        *args: Any,
        name: str | None = None,
    ) -> None:
        """Run a background task that ends with the runtime at the latest.

        An exception that escapes from it ends the runtime's scope and is raised there.
        """
        self.check_open()
        self._nursery.start_soon(function, *args, name=name)

    def actor(self, device_id: DeviceId, lane: int = 0) -> DeviceActor:
        """The device's actor; its thread starts on first use.

        A device that works for several shares of one batch has an actor for each of
        them, with a `lane` of its own: they wait for each other.
        """
        self.check_open()
        actor = self._actors.get((device_id, lane))
        if actor is None:
            actor = DeviceActor(
                device_id,
                self._doorbells,
                self._observe,
                lane,
                self.supervisor,
                self.workers,
                self._process_started,
            )
            self._actors[device_id, lane] = actor
            self._spread()
        return actor

    def observe(self, observer: Observer | None) -> None:
        """Tell `observer` of every command on every device thread; None ends it."""
        self._observe = observer
        for actor in self._actors.values():
            actor.thread.observe = observer

    async def close_owned(self, deadline: float) -> None:
        """Close what is registered, newest first; called by `open_runtime`."""
        with trio.move_on_after(deadline, shield=True):
            while self._owned:
                _, owned = self._owned.popitem()
                await self._close(owned)
        self.closed = True
        self._nursery.cancel_scope.cancel()

    async def stop_threads(self, deadline: float) -> None:
        """End the device threads; called by `open_runtime`.

        Returns after `deadline` seconds at the latest. What blocks a device thread
        then is named in a log line, and the thread is left to itself.
        """
        self.stopped = True
        threads = [actor.thread for actor in self._actors.values()]
        for actor in self._actors.values():
            actor.stop()
        with trio.move_on_after(deadline, shield=True):
            for thread in threads:
                await thread.join()
        self._doorbells.close()
        blocking = [text for thread in threads if (text := thread.running)]
        for actor in self._actors.values():
            actor.kill()  # only those that have not ended in time still have a process
        if blocking:
            _logger().warning(
                "closed without waiting any longer for device threads that still run "
                + ", ".join(blocking)
            )

    def _spread(self) -> None:
        """Share the cores among the devices: their threads, and their processes."""
        actors = self._actors.values()
        spread([actor.thread.native_id for actor in actors])
        spread([actor.pid or actor.thread.native_id for actor in actors])

    def _process_started(self, actor: DeviceActor) -> None:
        if self.closed:
            return
        self._spread()
        self.start_soon(_mourn, actor, name=f"watch the worker of {actor.device_id}")

    async def _close(self, owned: Closable) -> None:
        try:
            await owned.aclose()
        except Exception:
            _logger().exception(f"closing {owned!r} failed")

    def forked(self) -> None:
        """The threads and workers are those of the parent; called in a forked child."""
        self.closed = self.stopped = self._is_copy = True
        self._owned.clear()
        self._actors.clear()

    def check_open(self) -> None:
        """Refuse to work when the scope has ended, or in a forked child.

        Raises:
            ClosedError: either is so.
        """
        if self._is_copy:
            raise ClosedError(
                "this process was forked from the one that has the devices, and "
                "threads do not come along: start it by multiprocessing's 'spawn', and "
                "open a runtime in it"
            )
        if self.closed:
            raise ClosedError(
                "the runtime is closed; use modules inside its `async with` block"
            )


@asynccontextmanager
async def open_runtime(
    *, deadline: float = 10.0, workers: WorkerPolicy | None = None
) -> AsyncIterator[Runtime]:
    """Open a runtime for the body of an `async with`.

    While any runtime is open, BLAS runs single-threaded in this process (devices bring
    their own threads). An exception of the body, or of one background task, comes out
    bare, not in an exception group.

    Args:
        deadline: Seconds that closing may take; what still blocks then is named in a
            log line and left to itself.
        workers: What is borne from worker processes; see `WorkerPolicy`.
    """
    failures: list[BaseException] = []
    runtime: Runtime | None = None
    end = math.inf
    with single_threaded_blas():
        try:
            async with trio.open_nursery() as nursery:
                runtime = Runtime(nursery, workers)
                token = _current.set(runtime)
                try:
                    yield runtime
                except BaseException as error:
                    failures.append(error)
                finally:
                    _current.reset(token)
                    end = trio.current_time() + deadline
                    await runtime.close_owned(deadline)
        except BaseExceptionGroup as group:
            # A task failed; that the body was cancelled for it is no news.
            failures = [e for e in failures if not isinstance(e, trio.Cancelled)]
            failures += group.exceptions
        finally:
            if runtime is not None:
                # Idle threads end at once, so they get a moment in any case.
                await runtime.stop_threads(max(end - trio.current_time(), 0.1))
    if len(failures) > 1:
        raise BaseExceptionGroup("a runtime's body and its tasks failed", failures)
    for failure in failures:
        raise failure


def current_runtime() -> Runtime | None:
    """The innermost runtime that is open around the running task."""
    return _current.get()


async def _mourn(actor: DeviceActor) -> None:
    """Say so when a process dies while nobody waits for it."""
    pid = actor.pid
    if pid is None or not hasattr(os, "pidfd_open"):
        return
    try:
        fd = os.pidfd_open(pid)
    except OSError:  # missed already, or there is no descriptor left to watch it
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)
    if actor.idle and actor.pid == pid:
        _logger().warning(
            f"the worker process of {actor.device_id} (pid {pid}) has ended while it "
            "was idle"
        )


def _logger() -> Any:
    # Imported at the first line logged: it takes longer than all of asyncmod.
    import structlog

    return structlog.get_logger("asyncmod")
