"""Where a module lives: its own scope, a runtime's, or nowhere."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import asyncmod as mx
from asyncmod.errors import ClosedError, ScopeError
from tests.asyncmod.module.nets import batch, mlp, ready, rows


def device_threads() -> int:
    return sum("reference" in thread.name for thread in threading.enumerate())


async def test_entered_module_owns_its_runtime() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        assert device_threads() == 1
    assert device_threads() == 0
    with pytest.raises(ClosedError, match="closed"):
        await module.forward(batch())


async def test_modules_in_one_runtime_share_its_devices() -> None:
    async with mx.open_runtime():
        async with mx.Module(mlp(), context=mx.reference(0)) as first:
            await ready(first)
            second = await ready(mx.Module(mlp(), context=mx.reference(0)))
            assert device_threads() == 1
        await second.forward(batch())
        assert not first.binded
    assert device_threads() == 0
    assert not second.binded


async def test_module_outside_any_runtime() -> None:
    module = mx.Module(mlp(), context=mx.reference(0))
    with pytest.raises(ScopeError, match=r"async with mx\.Module") as caught:
        await module.bind([("data", (8, 5))])
    assert isinstance(caught.value, AssertionError)
    assert caught.traceback[0].path.name == "test_scope.py"
    with pytest.raises(ScopeError, match="outside any runtime"):
        await module.fit(mx.io.NDArrayIter(*rows(8)), num_epoch=1)


async def test_entering_twice() -> None:
    async with mx.Module(mlp()) as module:
        with pytest.raises(ScopeError, match="entered already"):
            async with module:
                pass


async def test_aclose_is_idempotent_and_may_come_early() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        await module.aclose()
        await module.aclose()
        with pytest.raises(ClosedError):
            await module.step(batch())
    never_used = mx.Module(mlp())
    await never_used.aclose()


async def test_an_error_in_the_body_comes_out_bare() -> None:
    async def use() -> None:
        async with mx.Module(mlp(), context=mx.reference(0)) as module:
            await ready(module)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await use()
    assert device_threads() == 0


def test_under_asyncio() -> None:
    async def main() -> None:
        module = mx.Module(mlp())
        with pytest.raises(ScopeError, match=r"to_thread\(mx\.run, main\)"):
            await module.bind([("data", (8, 5))])
        with pytest.raises(ScopeError, match="under Trio"):
            await module.__aenter__()
        with pytest.raises(ScopeError, match="under Trio"):
            await mx.bind(mlp(), {}).__aenter__()

    asyncio.run(main())


def test_from_asyncio_in_a_thread() -> None:
    """What the message advises."""

    async def train() -> int:
        module = await ready(mx.Module(mlp(), context=mx.reference(0)))
        await module.forward(batch())
        [out] = await module.get_outputs()
        return len(out)

    async def main() -> int:
        return await asyncio.to_thread(mx.run, train)

    assert asyncio.run(main()) == 8


@pytest.mark.parametrize("call", [mx.Module.forward, mx.Module.step])
async def test_closing_waits_for_a_call_that_runs(call: Callable[..., Any]) -> None:
    """Which then returns as if nothing had been closed."""
    done: list[str] = []

    async def use(module: mx.Module) -> None:
        await call(module, batch())
        done.append("call")

    async with mx.open_runtime():
        module = await ready(mx.Module(mlp(), context=mx.reference(0)), learning_rate=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, module)
            await trio.testing.wait_all_tasks_blocked()
            await module.aclose()
            done.append("closed")
    assert sorted(done) == ["call", "closed"]


async def test_a_module_that_is_closed_while_it_is_fitted() -> None:
    """The error is that of the batch under way, and says which one it was."""
    begun = trio.Event()
    caught: list[ClosedError] = []
    async with mx.open_runtime(), trio.open_nursery() as nursery:
        module = mx.Module(mlp(), context=[mx.reference(0), mx.reference(1)])

        async def fit() -> None:
            with pytest.raises(ClosedError) as error:
                await module.fit(
                    mx.io.NDArrayIter(*rows(800), batch_size=8),
                    num_epoch=10**6,
                    batch_end_callback=lambda param: begun.set(),
                )
            caught.append(error.value)

        nursery.start_soon(fit)
        await begun.wait()
        await module.aclose()
    assert any("at batch" in note for note in caught[0].__notes__)


async def test_a_closed_module_is_forgotten_by_its_runtime() -> None:
    async def use() -> weakref.ref[mx.Module]:
        async with mx.Module(mlp(), context=mx.reference(0)) as module:
            await ready(module)
            return weakref.ref(module)

    async with mx.open_runtime():
        reference = await use()
        gc.collect()
        assert reference() is None


class Blocking(mx.optimizer.Optimizer):
    """User code that blocks its device thread."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__(rescale_grad=1 / 8)
        self.event = event
        self.begun = threading.Event()

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        self.begun.set()
        self.event.wait(60)


async def test_closing_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("asyncmod.module.scoped.CLOSE_DEADLINE", 0.05)
    event = threading.Event()
    optimizer = Blocking(event)

    async def step(module: mx.Module) -> None:
        await module.step(batch())

    async with mx.open_runtime() as runtime:
        async with mx.Module(mlp(), context=mx.reference(0)) as module:
            await ready(module)
            await module.init_optimizer(optimizer=optimizer)
            runtime.start_soon(step, module)
            await trio.to_thread.run_sync(optimizer.begun.wait)
            began = trio.current_time()
        assert trio.current_time() - began < 5
        assert "without waiting any longer" in capsys.readouterr().out
        event.set()
