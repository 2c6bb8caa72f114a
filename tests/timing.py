"""Bounds on time: what is too slow is too slow in each of three runs.

What else the machine does holds up now one call, now another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import pytest

RUNS = 3


def check_fast(measure: Callable[[], float], bound: float) -> None:
    """Fail if a measurement is not below the bound in any of three runs."""
    seconds = []
    for _ in range(RUNS):
        seconds.append(measure())
        if seconds[-1] < bound:
            return
    pytest.fail(f"not below {bound}: {seconds}")


async def check_never_slow(run: Callable[[], Awaitable[Mapping[str, object]]]) -> None:
    """Fail if a call is slow in each of three runs.

    Args:
        run: Makes all calls; gives those that were slow, by name, with how slow.
    """
    always: Mapping[str, object] = await run()
    for _ in range(RUNS - 1):
        if not always:
            return
        slow = await run()
        always = {name: slow[name] for name in always.keys() & slow.keys()}
    if always:
        pytest.fail(f"slow each time: {always}")
