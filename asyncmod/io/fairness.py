"""Checkpoints for calls so short that a full one would cost more than the work."""

from __future__ import annotations

from time import perf_counter

import trio

from asyncmod.trio_task import check_trio

LONGEST_TURN = 0.001
"""Seconds after which control goes back to the scheduler."""

LARGE_COPY = 1 << 20
"""Bytes above which a copy leaves the Trio thread."""


class Turn:
    """Checks for cancellation at each call; reschedules once a millisecond."""

    def __init__(self) -> None:
        self._began = perf_counter()

    async def checkpoint(self) -> None:
        """Raise Cancelled if due; call it before anything is changed.

        Raises:
            ScopeError: outside Trio.
        """
        check_trio("an iterator")
        if perf_counter() - self._began < LONGEST_TURN:
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        await trio.lowlevel.checkpoint()
        self._began = perf_counter()
