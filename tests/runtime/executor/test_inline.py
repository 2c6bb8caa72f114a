"""Cheap steps of one device run on the Trio thread, and still behave."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import trio

from asyncmod import symbol as sym
from runtime.context import DeviceId
from runtime.devices.cpu.joined import JoinedSteps
from runtime.executor.collective import Update
from runtime.executor.group import ExecutorGroup, GroupSpec, InputSpec
from tests.runtime.executor.nets import (
    Sgd,
    batch_of,
    devices,
    held,
    mlp_spec,
    open_group,
    same,
    snapshot,
)

CPU = devices("cpu")


@pytest.fixture(autouse=True)
async def needs_native_kernels() -> None:
    async with open_group(mlp_spec(CPU)) as group:
        training = group._replicas[0].training
        if training is None or not training.inline:
            pytest.skip("the cpu device has no native kernels here")


async def commands(group: ExecutorGroup) -> list[str]:
    """Collects the labels of the commands that the device threads get."""
    seen: list[str] = []
    actor = group._calls.crew.actors[0]
    actor.thread.observe = lambda event, name, command: (
        seen.append(command.label) if event == "queued" else None
    )
    return seen


async def test_a_cheap_step_sends_no_command() -> None:
    spec = mlp_spec(CPU)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        await group.predict(batch_of(spec))  # compiles
        seen = await commands(group)
        await group.step(batch_of(spec), sgd.updater)
        await group.forward(batch_of(spec), True)
        await group.backward()
        await group.outputs()
        await group.predict(batch_of(spec))
        await group.read_parameters()
        await group.acquire_slot()
        pending = group.dispatch_step(batch_of(spec), sgd.updater)
        await pending.copied()
        assert len(await pending.outputs()) == 1
        assert await pending.settle()
        assert seen == []


async def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for inline in ("1", "0"):
        monkeypatch.setenv("ASYNCMOD_INLINE", inline)
        spec = mlp_spec(CPU)
        async with open_group(spec) as group:
            sgd = Sgd(spec)
            await group.prepare(sgd.updater)
            seen = await commands(group)
            for k in range(3):
                await group.step(batch_of(spec, k), sgd.updater)
            assert seen == ([] if inline == "1" else ["step"] * 3)
            results.append(await snapshot(group))
    assert same(*results)


async def test_several_devices_with_little_work_need_no_threads_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = []
    for inline in ("1", "0"):
        monkeypatch.setenv("ASYNCMOD_INLINE", inline)
        spec = mlp_spec(devices("cpu", "cpu"), batch=5)
        async with open_group(spec) as group:
            sgd = Sgd(spec)
            await group.prepare(sgd.updater)
            seen = await commands(group)
            outputs = {}
            for k in range(3):
                await group.step(batch_of(spec, k), sgd.updater)
                await group.acquire_slot()
                pending = group.dispatch_step(batch_of(spec, k + 3), sgd.updater)
                [outputs[f"out {k}"]] = await pending.outputs()
            assert seen == ([] if inline == "1" else ["step"] * 6)
            results.append(await snapshot(group) | outputs)
    assert same(*results)


def dense_spec(where: tuple[DeviceId, ...]) -> GroupSpec:
    return mlp_spec(where, batch=5)


def normalized_spec(where: tuple[DeviceId, ...]) -> GroupSpec:
    """A convolution whose BatchNorm is folded into it in prediction."""
    x = sym.Convolution(
        sym.Variable("data"), num_filter=2, kernel=(1, 1), no_bias=True, name="conv"
    )
    x = sym.BatchNorm(x, fix_gamma=False, name="norm")
    x = sym.FullyConnected(sym.Flatten(x), num_hidden=3, name="fc")
    graph = sym.SoftmaxOutput(x, name="softmax").graph
    names = [n.name for n in graph.arguments if n.name not in ("data", "softmax_label")]
    return GroupSpec(
        graph,
        where,
        (1.0,) * len(where),
        (InputSpec("data", (4, 2, 2, 2)),),
        (InputSpec("softmax_label", (4,)),),
        gradients=dict.fromkeys(names, "write"),
    )


@pytest.mark.parametrize("make", [dense_spec, normalized_spec])
@pytest.mark.parametrize("where", [CPU, devices("cpu", "cpu")], ids=len)
async def test_a_step_of_all_devices_is_one_launch(
    where: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, launched = JoinedSteps.launch, list[int]()

    def counted(self: JoinedSteps, keys: Any) -> None:
        launched.append(len(keys))
        launch(self, keys)

    monkeypatch.setattr(JoinedSteps, "launch", counted)
    spec = make(where)
    batches = [batch_of(spec, seed) for seed in range(4)]
    # Another dtype and another order of the elements, which are converted.
    batches += [
        {name: np.asfortranarray(array, np.float64) for name, array in batch.items()}
        for batch in batches
    ]

    async def trained() -> dict[str, Any]:
        async with open_group(spec) as group:
            sgd = Sgd(spec)
            await group.prepare(sgd.updater)
            for batch in batches:
                await group.step(batch, sgd.updater)
                [predicted] = await group.predict(batches[0])  # from the newest values
            [output] = await group.outputs()
            results = await snapshot(group) | {"out": output, "predicted": predicted}
            await group.forget(sgd.updater)
            again = Sgd(spec)
            await group.step(batches[0], again.updater)  # with states of its own
            await group.forward(batches[1], True)
            await group.backward()
            gradients = await group.gradients()
            again_results = await snapshot(group)
        results |= {f"again {n}": value for n, value in again_results.items()}
        return results | {f"gradient {n}": v for n, v in gradients.items()}

    joined = await trained()
    assert launched == [len(where)] * (len(batches) + 1)
    monkeypatch.setattr(Update, "joined", lambda self, replicas: None)
    assert same(joined, await trained())
    assert len(launched) == len(batches) + 1


async def test_what_is_queued_comes_first() -> None:
    """A step that is called while the device has work waits in its queue."""
    spec = mlp_spec(CPU)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        seen = await commands(group)
        async with trio.open_nursery() as nursery:
            with held(group):
                nursery.start_soon(group.step, batch_of(spec), sgd.updater)
                await trio.testing.wait_all_tasks_blocked()
                assert seen == ["hold", "step"]
        assert sgd.count == 1


async def test_each_step_looks_for_a_cancellation() -> None:
    spec = mlp_spec(CPU)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.step(batch_of(spec), sgd.updater)
        before = await snapshot(group)
        for _ in range(3):
            with trio.CancelScope() as scope:
                scope.cancel()
                await group.step(batch_of(spec), sgd.updater)
            assert scope.cancelled_caught
        assert sgd.count == 1
        assert same(before, await snapshot(group))


async def test_other_tasks_get_their_turn_once_per_millisecond() -> None:
    spec = mlp_spec(CPU)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        batch = batch_of(spec)
        longest, last, done = 0, 0, False

        async def tick() -> None:
            nonlocal last, longest
            while not done:
                longest = max(longest, steps - last)
                last = steps
                await trio.lowlevel.checkpoint()

        steps = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            begin = time.perf_counter()
            while steps < 3000:
                await group.step(batch, sgd.updater)
                steps += 1
            elapsed = time.perf_counter() - begin
            longest = max(longest, steps - last)
            done = True
        # Between two ticks at most the steps that fit in a millisecond, or in a few
        # if the machine is busy; without any yield it would be all of them.
        assert longest < max(3000 * 5e-3 / elapsed, 300)


@pytest.fixture
def none_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the tests' nets too large to run on the Trio thread whatever happens."""
    monkeypatch.setattr("runtime.devices.cpu.device.INLINE_MICROSECONDS", 0.0)


async def labels_of_forwards(group: ExecutorGroup, spec: GroupSpec) -> list[str]:
    """Of 40 after the two that compile and that take the time."""
    seen = await commands(group)
    await group.forward(batch_of(spec), False)
    await group.forward(batch_of(spec), False)
    assert seen == ["forward"] * 2
    seen.clear()
    for k in range(40):
        await group.forward(batch_of(spec, k), False)
    return seen


@pytest.mark.usefixtures("none_is_cheap")
async def test_short_inference_needs_no_thread_while_nobody_else_can_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = mlp_spec(CPU)
    outputs = []
    for longest in (10.0, 0.0):
        monkeypatch.setattr("runtime.executor.pace.SHORT", longest)
        async with open_group(spec) as group:
            seen = await labels_of_forwards(group, spec)
            assert seen == ([] if longest else ["forward"] * 40)
            outputs.append({"forward": (await group.outputs())[0]})
            seen.clear()
            outputs[-1]["predict"] = (await group.predict(batch_of(spec)))[0]
            assert seen == ([] if longest else ["predict"])
    assert same(*outputs)


@pytest.mark.usefixtures("none_is_cheap")
async def test_short_inference_leaves_the_event_loop_to_a_task_that_can_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runtime.executor.pace.SHORT", 10.0)
    spec = mlp_spec(CPU)
    async with open_group(spec) as group, trio.open_nursery() as nursery:

        async def busy() -> None:
            while True:
                await trio.lowlevel.checkpoint()

        nursery.start_soon(busy)
        # Three times of four, since the scheduler shuffles the tasks of each pass.
        assert len(await labels_of_forwards(group, spec)) > 10
        nursery.cancel_scope.cancel()


async def test_an_inline_error_names_the_device_and_takes_back_the_count() -> None:
    spec = mlp_spec(CPU)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        group._memory.torn = "torn by the test"
        with pytest.raises(Exception, match="torn by the test") as caught:
            await group.step(batch_of(spec), sgd.updater)
        assert "on cpu(0)" in caught.value.__notes__
        await group.acquire_slot()
        pending = group.dispatch_step(batch_of(spec), sgd.updater)
        with pytest.raises(Exception, match="torn by the test"):
            await pending.wait()
        assert not await pending.settle()
        assert sgd.count == 0
        group._memory.torn = None
        await group.step(batch_of(spec), sgd.updater)
    assert threading.current_thread() is threading.main_thread()
