"""A runtime leaves nothing behind, however its scope ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import structlog
import trio

from runtime.actors import current_runtime, open_runtime
from runtime.actors.actor import send
from runtime.actors.command import Command
from runtime.context import DeviceId
from runtime.errors import ClosedError

CPU = DeviceId("cpu")


class Owned:
    """Notes when it is closed."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append(self.name)


async def test_threads_start_on_first_use_and_end_with_the_scope() -> None:
    before = set(threading.enumerate())
    async with open_runtime() as runtime:
        assert set(threading.enumerate()) == before
        actor = runtime.actor(CPU)
        assert runtime.actor(DeviceId("cpu", 0)) is actor
        [thread] = set(threading.enumerate()) - before
        assert thread.name == "cpu(0)"
    assert set(threading.enumerate()) == before


async def test_the_current_runtime_is_the_innermost() -> None:
    assert current_runtime() is None
    async with open_runtime() as outer:
        assert current_runtime() is outer
        async with open_runtime() as inner:
            assert current_runtime() is inner
        assert current_runtime() is outer
    assert current_runtime() is None


async def test_child_tasks_see_the_runtime_that_they_were_started_in() -> None:
    seen = []

    async def look() -> None:
        seen.append(current_runtime())

    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        nursery.start_soon(look)
    assert seen == [runtime]


async def test_what_is_owned_is_closed_newest_first() -> None:
    log: list[str] = []
    async with open_runtime() as runtime:
        first, second, third = (Owned(name, log) for name in "abc")
        for owned in (first, second, third):
            runtime.register(owned)
        runtime.unregister(second)
        runtime.unregister(second)
    assert log == ["c", "a"]


async def test_a_failing_close_does_not_stop_the_others() -> None:
    class Failing(Owned):
        async def aclose(self) -> None:
            raise OSError("cannot close")

    log: list[str] = []
    with structlog.testing.capture_logs() as logs:
        async with open_runtime() as runtime:
            runtime.register(Owned("a", log))
            runtime.register(Failing("b", log))
    assert log == ["a"]
    assert logs[0]["log_level"] == "error"


async def test_owned_things_are_closed_though_the_scope_is_cancelled() -> None:
    log: list[str] = []
    with trio.CancelScope() as scope:
        async with open_runtime() as runtime:
            runtime.register(Owned("a", log))
            runtime.actor(CPU)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert log == ["a"]


async def test_an_error_of_the_body_comes_out_bare_with_its_cause() -> None:
    cause = KeyError("cause")
    error = ValueError("body")
    with pytest.raises(ValueError, match="body") as caught:
        async with open_runtime():
            raise error from cause
    assert caught.value is error
    assert error.__cause__ is cause


async def test_an_error_of_a_background_task_comes_out_bare() -> None:
    async def fail() -> None:
        raise ValueError("task")

    async def body() -> None:
        async with open_runtime() as runtime:
            runtime.start_soon(fail)
            await trio.sleep_forever()

    with pytest.raises(ValueError, match="task"):
        await body()


async def test_errors_of_body_and_task_come_out_together() -> None:
    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("task")

    async def body() -> None:
        async with open_runtime() as runtime:
            runtime.start_soon(fail_late)
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError("body")

    with pytest.raises(BaseExceptionGroup) as caught:
        await body()
    assert {type(e) for e in caught.value.exceptions} == {KeyError, ValueError}


async def test_background_tasks_end_with_the_scope() -> None:
    ended = []

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    async with open_runtime() as runtime:
        runtime.start_soon(background)
        await trio.testing.wait_all_tasks_blocked()
    assert ended == [True]


async def test_a_thread_that_blocks_is_named_and_left(
    request: pytest.FixtureRequest,
) -> None:
    gate = threading.Event()
    with structlog.testing.capture_logs() as logs:
        async with open_runtime(deadline=0.05) as runtime:
            actor = runtime.actor(CPU)
            send(Command("update", [lambda: gate.wait(30)], ["cpu(0)"]), [actor])
    assert "`update` on cpu(0) for" in logs[0]["event"]
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "cpu(0)":
            thread.join(10)


async def test_a_close_that_blocks_ends_at_the_deadline() -> None:
    class Blocking(Owned):
        async def aclose(self) -> None:
            await trio.sleep_forever()

    log: list[str] = []
    with trio.fail_after(10):
        async with open_runtime(deadline=0.05) as runtime:
            runtime.register(Blocking("a", log))


async def test_a_closed_runtime_refuses() -> None:
    async with open_runtime() as runtime:
        pass
    calls: list[Callable[[], object]] = [
        lambda: runtime.actor(CPU),
        lambda: runtime.start_soon(trio.sleep_forever),
        lambda: runtime.register(Owned("a", [])),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="runtime is closed"):
            call()


async def test_blas_is_single_threaded_while_any_runtime_is_open() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def blas_threads() -> list[int]:
        infos = threadpoolctl.threadpool_info()
        return [i["num_threads"] for i in infos if i["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        np.dot(np.ones((2, 2)), np.ones((2, 2)))
        before = blas_threads()
        if not before or max(before) < 2:
            pytest.skip("this NumPy has no BLAS with threads")
        async with open_runtime():
            assert set(blas_threads()) == {1}
            async with open_runtime():
                assert set(blas_threads()) == {1}
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
