"""Cancel a call at every point where it can be cancelled, and look what it left.

`cancel_at_every_step` runs a call again and again and cancels it at its k-th task step,
k = 1, 2, ..., until the call finishes first. Device threads are held at a gate and move
only while no task can run, so that the steps come in the same order every time.

The gate stands at one of two places: before a thread can begin a command ("queued": a
cancelled command is withdrawn), or after it has begun it ("begun": a cancelled call
must wait for the command's end). A thorough test goes through both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import trio

from runtime.actors.command import Command
from runtime.actors.device_thread import Event
from runtime.actors.runtime import Runtime

GatePlace = Literal["queued", "begun"]
PLACES: tuple[GatePlace, ...] = ("queued", "begun")


class Gate(trio.abc.Instrument):
    """Holds device threads; lets them pass when Trio has nothing else to do."""

    def __init__(self, place: GatePlace) -> None:
        self._hold_at: Event = "reached" if place == "queued" else "began"
        self._lock = threading.Condition()
        self._waiting: set[str] = set()  # threads at the gate
        self._passed: deque[Command[Any]] = deque(maxlen=8)
        self._passes = 0  # how often the gate was opened
        self._busy: dict[str, int] = {}  # commands of each thread, running one included
        self._open = False
        self._token = trio.lowlevel.current_trio_token()

    def __call__(self, event: Event, thread: str, command: Command[Any]) -> None:
        """Observe a device thread (see `Runtime.observe`)."""
        with self._lock:
            if event == "queued":
                self._busy[thread] = self._busy.get(thread, 0) + 1
                self._wait_until_held(thread)
            if event == self._hold_at and not self._may_pass(command):
                opened = self._passes
                self._waiting.add(thread)
                self._lock.notify_all()
                # Trio may be asleep already: let it look once more for work to do.
                self._token.run_sync_soon(lambda: None)
                self._lock.wait_for(
                    lambda: self._passes > opened or self._may_pass(command)
                )
                self._waiting.discard(thread)
                # Its other threads must not be held, or this one might wait for them.
                self._passed.append(command)
                self._lock.notify_all()
            if event == "ended" or (event == "reached" and command.withdrawn):
                self._busy[thread] -= 1
                self._lock.notify_all()

    def before_io_wait(self, timeout: float) -> None:
        """Trio: no task can run for `timeout` seconds."""
        if timeout > 0:
            with self._lock:
                self._passes += 1
                self._lock.notify_all()

    def open(self) -> None:
        """Hold nobody any more."""
        with self._lock:
            self._open = True
            self._lock.notify_all()

    def _may_pass(self, command: Command[Any]) -> bool:
        return self._open or any(command is passed for passed in self._passed)

    def _wait_until_held(self, thread: str) -> None:
        """Let the Trio thread go on only when the device thread stands at the gate."""

        def held() -> bool:
            return thread in self._waiting or self._open or self._busy[thread] == 0

        if not self._lock.wait_for(held, timeout=60):
            raise TimeoutError(f"{thread} did not come to the gate")


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope right before the k-th step of a task or of its children."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, k: int):
        self._task = task
        self._scope = scope
        self._left = k

    @property
    def reached(self) -> bool:
        return self._left <= 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._belongs(task):
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()

    def _belongs(self, task: trio.lowlevel.Task | None) -> bool:
        while task is not None:
            if task is self._task:
                return True
            nursery = task.parent_nursery
            task = None if nursery is None else nursery.parent_task
        return False


@contextmanager
def held_threads(runtime: Runtime, place: GatePlace) -> Iterator[Gate]:
    """Hold the device threads of a runtime at a gate for the body of a `with`."""
    gate = Gate(place)
    runtime.observe(gate)
    trio.lowlevel.add_instrument(gate)
    try:
        yield gate
    finally:
        trio.lowlevel.remove_instrument(gate)
        gate.open()
        runtime.observe(None)


async def cancel_at_every_step(
    call: Callable[[], Awaitable[object]],
    check: Callable[[bool], Awaitable[object]],
    *,
    runtime: Runtime | None = None,
    place: GatePlace = "queued",
    limit: int = 10_000,
) -> int:
    """Cancel `call` at its k-th task step for every k, and `check` after each.

    Args:
        call: What to cancel; called anew for every k. Steps of tasks that it starts in
            nurseries of its own count as well.
        check: Called with whether the call returned (it may although it was
            cancelled); asserts what must hold.
        runtime: Owner of the device threads to hold; none are held without.
        place: Where the device threads are held.
        limit: Give up after so many steps: the call does not seem to end.

    Returns:
        How many steps the call takes when nobody cancels it.
    """
    for k in range(1, limit):
        finished, reached = await _cancel_at(k, call, runtime, place)
        await check(finished)
        if not reached:
            assert finished, "the call was cancelled by itself"
            return k - 1
    raise AssertionError(f"the call did not finish within {limit} task steps")


async def _cancel_at(
    k: int,
    call: Callable[[], Awaitable[object]],
    runtime: Runtime | None,
    place: GatePlace,
) -> tuple[bool, bool]:
    finished = False
    instrument: CancelAtStep | None = None

    async def victim() -> None:
        nonlocal finished, instrument
        with trio.CancelScope() as scope:
            task = trio.lowlevel.current_task()
            instrument = CancelAtStep(task, scope, k)
            trio.lowlevel.add_instrument(instrument)
            try:
                # The first step of a task is not the call's own doing.
                await trio.lowlevel.cancel_shielded_checkpoint()
                await call()
                finished = True
            finally:
                trio.lowlevel.remove_instrument(instrument)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(victim)

    if runtime is None:
        await run()
    else:
        with held_threads(runtime, place):
            await run()
    assert instrument is not None
    return finished, instrument.reached
