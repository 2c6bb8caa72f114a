"""Short work gives way once per millisecond, and is cancelled at once."""

from __future__ import annotations

import pytest
import trio

from runtime.actors import open_runtime, turns
from runtime.actors.crew import Crew
from runtime.context import DeviceId


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds that `turns` reads."""
    now = [100.0]
    monkeypatch.setattr(turns, "perf_counter", lambda: now[0])
    turns.gave_way()
    return now


class Passes(trio.abc.Instrument):
    """Counts trips through the scheduler."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def gives_way() -> bool:
    """Whether a checkpoint goes through the scheduler."""
    passes = Passes()
    trio.lowlevel.add_instrument(passes)
    await turns.checkpoint()
    trio.lowlevel.remove_instrument(passes)
    return passes.count > 0


async def test_others_run_after_a_millisecond_only(clock: list[float]) -> None:
    clock[0] += 0.0009
    assert not await gives_way()
    clock[0] += 0.0002
    assert await gives_way()
    assert not await gives_way()  # another millisecond has begun


async def test_a_task_that_has_waited_has_given_way(clock: list[float]) -> None:
    async with open_runtime() as runtime:
        crew = Crew([runtime.actor(DeviceId("cpu", 0))])
        clock[0] += 1.0
        await crew.run("nothing", [lambda: None])
        assert not await gives_way()
        clock[0] += 1.0
        assert await gives_way()


@pytest.mark.parametrize("later", [0.0, 1.0])
async def test_a_cancellation_is_let_in_at_once(
    clock: list[float], later: float
) -> None:
    clock[0] += later
    with trio.CancelScope() as scope:
        scope.cancel()
        await turns.checkpoint()
    assert scope.cancelled_caught
