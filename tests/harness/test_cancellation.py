"""The harness must find what it is made to find."""

from __future__ import annotations

import pytest
import trio

from runtime.actors.actor import DeviceActor, send
from runtime.actors.command import Command
from runtime.actors.runtime import open_runtime
from runtime.context import DeviceId
from tests.harness.cancellation import PLACES, GatePlace, cancel_at_every_step


class Pair:
    """Two numbers that ought to be equal always."""

    def __init__(self) -> None:
        self.left = self.right = 0

    async def torn_update(self) -> None:
        self.left += 1
        await trio.lowlevel.checkpoint()
        self.right += 1

    async def whole_update(self) -> None:
        await trio.lowlevel.checkpoint()
        self.left += 1
        self.right += 1
        await trio.lowlevel.checkpoint()

    async def check(self, finished: bool) -> None:
        assert self.left == self.right


async def test_flags_an_update_with_a_checkpoint_in_its_middle() -> None:
    pair = Pair()
    with pytest.raises(AssertionError):
        await cancel_at_every_step(pair.torn_update, pair.check)


async def test_passes_an_update_that_is_whole() -> None:
    pair = Pair()
    assert await cancel_at_every_step(pair.whole_update, pair.check) == 3


async def test_counts_the_steps_of_child_tasks() -> None:
    async def family() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            nursery.start_soon(trio.lowlevel.checkpoint)

    async def check(finished: bool) -> None:
        pass

    alone = await cancel_at_every_step(trio.lowlevel.checkpoint, check)
    assert await cancel_at_every_step(family, check) > alone + 2


@pytest.mark.parametrize("place", PLACES)
async def test_the_gate_decides_what_a_cancelled_command_does(place: GatePlace) -> None:
    async with open_runtime() as runtime:
        actor: DeviceActor = runtime.actor(DeviceId("cpu"))
        ran: list[int] = []
        results: list[tuple[bool, int]] = []

        async def call() -> None:
            command = Command("work", [lambda: ran.append(1)], ["cpu(0)"])
            send(command, [actor])
            await command.wait()

        async def check(finished: bool) -> None:
            results.append((finished, len(ran)))
            ran.clear()

        await cancel_at_every_step(call, check, runtime=runtime, place=place)
        if place == "queued":
            assert results == [(False, 0), (True, 1), (True, 1)]
        else:
            assert results == [(True, 1), (True, 1), (True, 1)]
