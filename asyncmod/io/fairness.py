"""Checkpoints of iterators: calls so short that a full one would cost more."""

from __future__ import annotations

from asyncmod.trio_task import check_trio
from runtime.actors import turns

LARGE_COPY = 1 << 20
"""Bytes above which a copy leaves the Trio thread."""


async def checkpoint() -> None:
    """Raise Cancelled if due; call it before anything is changed.

    Raises:
        ScopeError: outside Trio.
    """
    check_trio("an iterator")
    await turns.checkpoint()
