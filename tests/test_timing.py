"""What is slow once or twice is not too slow; what is slow each time is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.timing import check_fast, check_never_slow

Failed = pytest.fail.Exception


@pytest.mark.parametrize("seconds", [(0.1,), (2.0, 0.1), (2.0, 2.0, 0.1)])
def test_one_run_below_the_bound_is_enough(seconds: Sequence[float]) -> None:
    left = list(seconds)
    check_fast(lambda: left.pop(0), 1.0)
    assert not left


def test_three_runs_above_the_bound_fail() -> None:
    left = [1.0, 2.0, 3.0]
    with pytest.raises(Failed, match=r"not below 1.0: \[1.0, 2.0, 3.0\]"):
        check_fast(lambda: left.pop(0), 1.0)


async def of(*runs: str) -> int:
    """How many of these runs, each with the names of its slow calls, were needed."""
    left = list(runs)

    async def run() -> dict[str, int]:
        return {name: len(left) for name in left.pop(0)}

    await check_never_slow(run)
    return len(runs) - len(left)


async def test_calls_that_are_slow_now_and_then() -> None:
    assert await of("") == 1
    assert await of("ab", "") == 2
    assert await of("ab", "cd") == 2
    assert await of("ab", "bc", "ac") == 3


async def test_a_call_that_is_slow_each_time() -> None:
    with pytest.raises(Failed, match=r"slow each time: \{'b': 0\}"):
        await of("ab", "bc", "b")
