"""Commands begin on all device threads or on none, and always end."""

from __future__ import annotations

import gc
import threading
import weakref
from functools import partial

import pytest
import trio

from runtime.actors.actor import send
from runtime.actors.command import Command
from runtime.actors.crew import Crew
from runtime.actors.runtime import open_runtime
from runtime.context import DeviceId

WHERE = [DeviceId("cpu", 0), DeviceId("cpu", 1), DeviceId("cpu", 2)]


def nothing() -> None:
    pass


async def test_results_come_in_the_order_of_the_devices() -> None:
    async with open_runtime() as runtime:
        crew = Crew([runtime.actor(device) for device in WHERE])

        def where() -> str:
            return threading.current_thread().name

        assert await crew.run("where", [where] * 3) == ["cpu(0)", "cpu(1)", "cpu(2)"]
        assert await crew.run_first("where", where) == "cpu(0)"


async def test_a_queued_command_is_withdrawn_from_all_devices() -> None:
    """The call is cancelled while all devices are held."""
    async with open_runtime() as runtime:
        crew = Crew([runtime.actor(device) for device in WHERE])
        gate = threading.Event()
        ran: list[int] = []
        hold = Command("hold", [lambda: gate.wait(10)] * 3, crew.names)
        send(hold, crew.actors)
        jobs = [partial(ran.append, i) for i in range(3)]
        with trio.move_on_after(0) as scope:
            await crew.run("work", jobs)
        assert scope.cancelled_caught
        gate.set()
        await hold.wait()
        await crew.run("after", [nothing] * 3)
        assert ran == []


async def test_a_begun_command_runs_to_its_end_on_all_devices() -> None:
    """One device has begun, two are held: the cancelled call waits for all three."""
    async with open_runtime() as runtime:
        crew = Crew([runtime.actor(device) for device in WHERE])
        held, begun, ran = threading.Event(), trio.Event(), [0]
        token = trio.lowlevel.current_trio_token()
        hold = Command("hold", [lambda: held.wait(10)] * 2, crew.names[1:])
        send(hold, crew.actors[1:])

        def first() -> None:
            token.run_sync_soon(begun.set)
            ran[0] += 1

        def other() -> None:
            ran[0] += 1

        outcome = []

        async def call() -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await crew.run("work", [first, other, other])
                outcome.append("returned")

        scopes: list[trio.CancelScope] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await begun.wait()
            scopes[0].cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert outcome == []  # it waits
            held.set()
        assert outcome == ["returned"]
        assert ran == [3]


async def test_the_lowest_device_is_raised_and_the_others_are_its_notes() -> None:
    async with open_runtime() as runtime:
        crew = Crew([runtime.actor(device) for device in WHERE])

        def fail(message: str) -> None:
            error = ValueError(message)
            error.add_note(f"in node {message}")
            raise error

        jobs = [nothing, lambda: fail("b"), lambda: fail("c")]
        with pytest.raises(ValueError, match="b") as caught:
            await crew.run("work", jobs)
        assert caught.value.__notes__ == [
            "in node b",
            "on cpu(1)",
            "also on cpu(2): ValueError: c; in node c",
        ]


async def test_an_error_of_one_device_lets_the_others_end() -> None:
    async with open_runtime() as runtime:
        crew = Crew([runtime.actor(device) for device in WHERE])
        gate, ended = threading.Event(), [0]

        def fail() -> None:
            raise KeyError("first")

        def work() -> None:
            gate.wait(10)
            ended[0] += 1

        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(KeyError):
                    await crew.run("work", [fail, work, work])
                assert ended == [2]

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()


async def test_what_must_be_done_is_done_though_nobody_waits() -> None:
    async with open_runtime() as runtime:
        crew = Crew([runtime.actor(device) for device in WHERE])
        gate = threading.Event()
        freed: list[None] = []
        hold = Command("hold", [lambda: gate.wait(10)] * 3, crew.names)
        send(hold, crew.actors)

        with trio.move_on_after(0) as scope:
            await crew.finish("free", [partial(freed.append, None)] * 3)
        assert scope.cancelled_caught
        assert len(freed) == 0
        gate.set()
        await crew.run("after", [nothing] * 3)
        assert len(freed) == 3


async def test_nobody_goes_on_before_all_have_ended_what_they_do_together() -> None:
    async with open_runtime() as runtime:
        crew = Crew([runtime.actor(device) for device in WHERE])
        gone_on = threading.Event()

        def slow() -> None:
            assert not gone_on.wait(0.1)

        first = Command("a", [nothing, nothing, slow], crew.names, together=True)
        second = Command("b", [gone_on.set] * 3, crew.names)
        send(first, crew.actors)
        send(second, crew.actors)
        await second.wait()
        first.results()
        assert gone_on.is_set()


async def test_a_finished_command_holds_nothing_large() -> None:
    class Large:
        pass

    gc.disable()
    try:
        async with open_runtime() as runtime:
            actor = runtime.actor(WHERE[0])
            large = Large()
            alive = weakref.ref(large)
            command = Command(
                "work",
                [partial(id, large)],
                ["cpu(0)"],
                on_finish=lambda: command.results().clear(),
            )
            send(command, [actor])
            await command.wait()
            del large
            await Crew([actor]).run("after", [nothing])
            assert alive() is None
    finally:
        gc.enable()


async def test_withdrawing_tells_before_any_thread_can_pass() -> None:
    async with open_runtime() as runtime:
        actor = runtime.actor(WHERE[0])
        gate, log = threading.Event(), []
        hold = Command("hold", [lambda: gate.wait(10)], ["cpu(0)"])
        send(hold, [actor])
        command: Command[None] = Command(
            "work", [nothing], ["cpu(0)"], on_withdraw=lambda: log.append("withdrawn")
        )
        send(command, [actor])
        assert command.withdraw()
        assert command.withdraw()  # once more changes nothing
        assert log == ["withdrawn"]
        gate.set()
        await hold.wait()
        assert not hold.withdraw()


async def test_idle_means_nothing_queued_and_nothing_running() -> None:
    async with open_runtime() as runtime:
        actor = runtime.actor(WHERE[0])
        idle = [actor.idle]
        gate = threading.Event()
        command = Command("hold", [lambda: gate.wait(10)], ["cpu(0)"])
        send(command, [actor])
        idle.append(actor.idle)
        gate.set()
        await command.wait()
        idle.append(actor.idle)
        assert idle == [True, False, True]
