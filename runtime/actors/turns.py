"""Taking turns on a Trio thread: short work looks for a cancellation, and gives way.

A whole trip through Trio's scheduler costs more than much of the work around it. So
calls that are that short only look whether they are cancelled, and go through the
scheduler once per millisecond of such work. A task that had to wait, for whatever it
was, has given way too.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from time import perf_counter

import trio

LONGEST_TURN = 1e-3
"""Seconds after which control goes back to the scheduler."""


class _Last(threading.local):
    """When control last went through the scheduler; of this thread's event loop."""

    yielded = 0.0


_last = _Last()


def alone() -> bool:
    """Whether no other task is seen to be able to run now.

    Those that run in the same pass of the scheduler, after this one, are not seen. It
    costs 2 us: much, unless there are 100 to be spared.
    """
    return trio.lowlevel.current_statistics().tasks_runnable == 0


def gave_way() -> None:
    """Note that this task has just waited."""
    _last.yielded = perf_counter()


def checkpoint() -> Awaitable[None]:
    """Let a cancellation in, and other tasks run if they had to wait for long.

    Await it at once, before anything is changed. Of coroutines it makes as few as can
    be: where Python notes their origin, as under `mx.run`, each costs 0.2 us.
    """
    if perf_counter() - _last.yielded < LONGEST_TURN:
        return trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC105
    return give_way()


async def give_way() -> None:
    """Let a cancellation in, and all other tasks run that can."""
    await trio.lowlevel.checkpoint()
    _last.yielded = perf_counter()
