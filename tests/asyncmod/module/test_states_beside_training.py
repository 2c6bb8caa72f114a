"""Optimizer states written and read while another task trains: of one moment."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
import trio.testing

import asyncmod as mx
from asyncmod.io import DataBatch
from tests.asyncmod.module.nets import mlp, rows, values

STEPS = 24
BATCH = 8
WHERE = {
    "one device": [mx.cpu(0)],
    "two devices": [mx.cpu(0), mx.cpu(1)],
    "definitions": [mx.reference(0), mx.reference(1)],
}


class Own(mx.optimizer.Optimizer):
    """Counts on the device what the optimizer counts when a step is dispatched."""

    def create_state(self, index: Any, weight: Any) -> Any:
        return {"count": 0, "weight": weight.copy()}

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        self._update_count(index)
        weight -= 0.1 * grad
        state["count"] += 1
        state["weight"] = weight.copy()


def optimizers(name: str) -> Any:
    return Own(rescale_grad=1 / BATCH) if name == "own" else name


async def ready(where: str, optimizer: str) -> mx.Module:
    symbol = mlp()
    module = mx.Module(symbol, context=WHERE[where])
    data, label = rows(BATCH)
    await module.bind([("data", data.shape)], [("softmax_label", label.shape)])
    await module.init_params(arg_params=values(symbol))
    await module.init_optimizer(
        optimizer=optimizers(optimizer), optimizer_params={"learning_rate": 0.01}
    )
    return module


def batch(seed: int) -> DataBatch:
    data, label = rows(BATCH, seed)
    return DataBatch([data], [label])


async def train(module: mx.Module, count: int = STEPS) -> None:
    for seed in range(count):
        await module.step(batch(seed))


def content(path: Path) -> Any:
    return msgpack.unpackb(path.read_bytes(), strict_map_key=False)


@pytest.mark.parametrize("optimizer", ["adam", "own"])
@pytest.mark.parametrize("where", WHERE)
async def test_a_checkpoint_is_of_one_moment(
    tmp_path: Path, where: str, optimizer: str
) -> None:
    """Parameters, states and counts are those after one and the same step."""
    async with mx.open_runtime():
        alone = await ready(where, optimizer)
        after = {}
        for seed in range(STEPS + 1):
            await alone.save_checkpoint(tmp_path / "alone", seed, True)
            arguments, _ = await alone.get_params()
            after[arguments["fc1_weight"].tobytes()] = seed
            await alone.step(batch(seed))
        module = await ready(where, optimizer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(train, module)
            for number in range(8):
                await module.save_checkpoint(tmp_path / "beside", number, True)
    seen = []
    for number in range(8):
        prefix = tmp_path / "beside"
        _, arguments, _ = mx.load_checkpoint(prefix, number)
        seen.append(after[arguments["fc1_weight"].tobytes()])
        states = content(Path(f"{prefix}-{number:04d}.states"))
        assert states == content(tmp_path / f"alone-{seen[-1]:04d}.states")
    assert seen == sorted(seen)
    assert len(set(seen)) > 1


@pytest.mark.parametrize("where", WHERE)
async def test_counts_that_are_read_beside_steps_stay_with_their_states(
    tmp_path: Path, where: str
) -> None:
    """Steps before count for neither, steps after for both."""
    async with mx.open_runtime():
        module = await ready(where, "own")
        await train(module, 3)
        await module.save_optimizer_states(tmp_path / "three")
        for wait in range(12):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(train, module, 6)
                for _ in range(wait):
                    await trio.lowlevel.checkpoint()
                await module.load_optimizer_states(tmp_path / "three")
            await module.save_optimizer_states(tmp_path / "now")
            now = content(tmp_path / "now")
            states = dict(now["own"]["fc1_weight"]["dict"])
            assert now["optimizer"]["num_update"] == states["count"] < 9


async def test_a_step_before_that_fails_does_not_count_back(tmp_path: Path) -> None:
    """What was dispatched before the states were read has nothing to do with them."""
    path = tmp_path / "states"
    async with mx.open_runtime():
        module = await ready("two devices", "adam")
        await train(module, 3)
        await module.save_optimizer_states(path)
        await train(module, 3)
        group = module.core.need_executors("test").first.group
        actor = group._calls.crew.actors[0]
        async with trio.open_nursery() as nursery:
            release = trio.Event()
            scope = trio.CancelScope()

            async def step() -> None:
                with scope:
                    await module.step(batch(0))

            nursery.start_soon(hold, group, release)
            while actor.idle:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(step)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(module.load_optimizer_states, path)
            while module.optimizer.num_update != 3:
                await trio.lowlevel.checkpoint()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            release.set()
        assert scope.cancelled_caught
        assert module.optimizer.num_update == 3
        await module.step(batch(0))
        assert module.optimizer.num_update == 4


async def hold(group: Any, release: trio.Event) -> None:
    """Keep the devices busy until they are released."""
    gate = threading.Event()

    async def open_gate() -> None:
        await release.wait()
        gate.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_gate)
        jobs = [gate.wait for _ in group._calls.crew.actors]
        await group._calls.crew.run("hold", jobs)


async def test_states_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "states"
    async with mx.open_runtime():
        module = await ready("one device", "adam")
        await train(module, 3)
        await module.save_optimizer_states(path)
        packed = content(path)
        packed["states"]["mean"]["fc1_weight"]["shape"] = [1, -1]
        path.write_bytes(msgpack.packb(packed))
        await train(module, 2)
        await module.save_optimizer_states(tmp_path / "before")
        with pytest.raises(mx.optimizer.OptimizerStatesError, match="do not fit"):
            await module.load_optimizer_states(path)
        await module.save_optimizer_states(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
