"""A device that is dropped while its module is closed, or the call is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import asyncmod as mx
from runtime.actors import current_runtime
from runtime.executor import dropping
from runtime.executor.family import Family
from tests.asyncmod.module.nets import rows, same
from tests.asyncmod.module.test_worker_death import (
    BATCH,
    batches,
    bound,
    devices,
    killed_idle,
)
from tests.asyncmod.module.test_worker_drop import continued
from tests.harness.cancellation import cancel_at_every_step
from tests.runtime.devices.process.sabotage import Point, sabotaged


def actors() -> list[Any]:
    runtime = current_runtime()
    assert runtime is not None
    return [a for a in runtime._actors.values() if a.device_id.worker == "process"]


async def dispatched(mod: mx.Module, batch: mx.io.DataBatch) -> None:
    await (await mod.inside.dispatch_step(batch)).wait()


@pytest.mark.parametrize("call", [mx.Module.step, dispatched])
def test_closed_in_the_middle(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to take its place is freed, and the call says that it is closed."""

    async def main() -> None:
        mod = await bound(devices(mx.cpu, "process", 2), on_worker_death="drop")
        settle = Family.settle

        async def closed(family: Family) -> None:
            await settle(family)
            await mod.aclose()

        monkeypatch.setattr(Family, "settle", closed)
        await killed_idle(1)
        with pytest.raises(mx.errors.ClosedError):
            await call(mod, batches()[0])
        for actor in actors():
            assert not actor._device.worker.programs

    mx.run(main)


@pytest.mark.parametrize("where", ["_form", "_change"])
def test_fit_is_cancelled_in_the_middle(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The two steps that are lost are done again, or not; then it goes on."""
    data, label = rows(6 * BATCH)
    reached = getattr(dropping, where)

    async def after(steps: int) -> Any:
        """The parameters after so many, the fourth and fifth on one device."""
        mx.seed(5)
        mod = await bound(devices(mx.cpu, "thread", 2))
        for i in range(steps):
            if i == 3:
                mod = await continued(mod, [0], tmp_path / "states")
            part = slice(i * BATCH, (i + 1) * BATCH)
            await mod.step(mx.io.DataBatch([data[part]], [label[part]]))
        return await mod.get_params()

    async def main() -> None:
        mx.seed(5)
        mod = await bound(devices(mx.cpu, "process", 2), on_worker_death="drop")

        async def cancelled(*args: Any) -> Any:
            scope.cancel()
            return await reached(*args)

        with monkeypatch.context() as patch, trio.CancelScope() as scope:
            patch.setattr(dropping, where, cancelled)
            await mod.fit(mx.io.NDArrayIter(data, label, BATCH), num_epoch=1)
        assert scope.cancelled_caught
        assert mod.core.optimization is not None
        optimizer = mod.core.optimization.optimizer
        done = optimizer.num_update
        assert 3 <= done <= 5
        assert same(await mod.get_params(), await after(done))
        await mod.fit(mx.io.NDArrayIter(data, label, BATCH), num_epoch=1)
        assert optimizer.num_update == done + 6
        assert len(mod.contexts) == 1

    with sabotaged(Point("forward", (1,), launch=4, index=1)):
        mx.run(main)


def test_what_cannot_be_formed_is_tried_again_by_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a moment there are both, the old executors and the new."""

    async def refused(*args: Any) -> Any:
        raise MemoryError

    async def main() -> None:
        mod = await bound(devices(mx.cpu, "process", 2), on_worker_death="drop")
        before = await mod.get_params()
        await killed_idle(1)
        with monkeypatch.context() as patch:
            patch.setattr(dropping, "bind", refused)
            with pytest.raises(MemoryError):
                await mod.step(batches()[0])
        assert same(await mod.get_params(), before)
        await mod.step(batches()[0])
        assert len(mod.contexts) == 1

    mx.run(main)


@pytest.mark.slow
def test_cancelled_anywhere_it_leaves_a_whole_generation(tmp_path: Path) -> None:
    """The step is there or not; the next one goes on from there in any case."""

    async def main() -> None:
        mx.seed(5)
        first, second, third, _ = batches()
        threads = await bound(devices(mx.cpu, "thread", 2))
        await threads.step(first)
        none = await continued(threads, [1], tmp_path / "states")
        before = await none.get_params()
        await none.step(second)
        after = await none.get_params()
        modules: list[mx.Module] = []

        async def prepare() -> None:
            mx.seed(5)
            contexts = devices(mx.cpu, "process", 2)
            modules.append(await bound(contexts, on_worker_death="drop"))
            await modules[-1].step(first)
            await killed_idle(0)

        async def call() -> None:
            await modules[-1].step(second)

        async def check(finished: bool) -> None:
            mod = modules.pop()
            got = await mod.get_params()
            stands = same(got[0], after[0])
            assert stands or (not finished and same(got[0], before[0]))
            await mod.step(third)
            assert len(mod.contexts) == 1
            await mod.aclose()
            for actor in actors():
                assert not actor._device or not actor._device.worker.programs
            await prepare()

        await prepare()
        await cancel_at_every_step(call, check, runtime=current_runtime())

    mx.run(main)
