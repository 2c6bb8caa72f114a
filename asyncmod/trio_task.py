"""The check that a call is made in a Trio task, with an error that helps."""

from __future__ import annotations

import trio

from asyncmod.errors import ScopeError


def check_trio(call: str) -> None:
    """Refuse a call outside a Trio task.

    Raises:
        ScopeError: under asyncio, or without any event loop.
    """
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise ScopeError(
            f"{call} runs under Trio, and this is no Trio task: start the program with "
            "`mx.run(main)` or `trio.run(main)`; from asyncio run it in a thread: "
            "`await asyncio.to_thread(mx.run, main)`"
        ) from None
