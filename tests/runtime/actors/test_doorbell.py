"""Tasks are woken by doorbells, and each doorbell rings for one wait only."""

from __future__ import annotations

import os
import sys
import threading

import pytest
import trio

from runtime.actors.actor import send
from runtime.actors.command import Command
from runtime.actors.crew import Crew
from runtime.actors.doorbell import Doorbell, Doorbells
from runtime.actors.runtime import open_runtime
from runtime.context import DeviceId

HERE = DeviceId("cpu", 0)

needs_eventfd = pytest.mark.skipif(sys.platform != "linux", reason="eventfd is Linux's")


@needs_eventfd
async def test_waits_one_after_another_share_a_doorbell() -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with open_runtime() as runtime:
        crew = Crew([runtime.actor(HERE)])
        for number in range(5):
            assert await crew.run("work", [lambda number=number: number]) == [number]
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("doorbells", [True, False])
async def test_an_abandoned_command_finishes_unheard(
    doorbells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it when it ends, and it must not wake the next who waits."""
    if not doorbells:
        monkeypatch.setattr(Doorbells, "take", lambda self: None)
    async with open_runtime() as runtime:
        actor = runtime.actor(HERE)
        begun, gate = trio.Event(), threading.Event()
        token = trio.lowlevel.current_trio_token()

        def hold() -> None:
            token.run_sync_soon(begun.set)
            gate.wait(10)

        abandoned = Command("hold", [hold], ["cpu(0)"])
        send(abandoned, [actor])
        await begun.wait()
        with trio.move_on_after(0) as scope:
            await abandoned.wait(abandon=True)
        assert scope.cancelled_caught
        assert not abandoned.finished
        order: list[str] = []
        after = Command("after", [lambda: order.append("ran")], ["cpu(0)"])
        send(after, [actor])
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                await after.wait()
                order.append("woken")

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert order == ["ran", "woken"]
        assert abandoned.finished


async def test_an_interrupt_is_raised_after_the_commands_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C is not lost, and it does not leave a begun command unattended."""
    wait = Doorbell.wait
    interrupts = [KeyboardInterrupt(), KeyboardInterrupt()]
    async with open_runtime() as runtime:
        actor = runtime.actor(HERE)
        begun, gate = trio.Event(), threading.Event()
        token = trio.lowlevel.current_trio_token()

        def hold() -> None:
            token.run_sync_soon(begun.set)
            gate.wait(10)

        command = Command("hold", [hold], ["cpu(0)"])
        send(command, [actor])
        await begun.wait()

        async def interrupted(self: Doorbell) -> None:
            if interrupts:
                if len(interrupts) == 1:
                    gate.set()
                raise interrupts.pop()
            await wait(self)

        monkeypatch.setattr(Doorbell, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            await command.wait()
        assert command.finished


@needs_eventfd
def test_a_doorbell_that_comes_back_late_is_closed() -> None:
    doorbells = Doorbells()
    doorbell = doorbells.take()
    assert doorbell is not None
    doorbells.close()
    assert doorbells.take() is None
    before = len(os.listdir("/proc/self/fd"))
    doorbells.give_back(doorbell)
    assert len(os.listdir("/proc/self/fd")) == before - 1
