"""Workers that die, and whose device is dropped: training goes on over the rest.

What comes of it must be, bit for bit, what comes of a training that went on over the
rest from where the last whole step had left it. Worker processes compute what threads
do, so that the trainings to compare with run on threads.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

import asyncmod as mx
from runtime.actors import current_runtime
from runtime.executor.accumulation import Accumulation
from runtime.executor.repeating import RepeatedForward
from runtime.executor.replica import Replica
from runtime.executor.snapshot import Carried
from tests.asyncmod.module.nets import FEATURES, aux_values, rows, same, values
from tests.asyncmod.module.test_worker_death import (
    BATCH,
    batches,
    bound,
    devices,
    killed_idle,
    net,
)
from tests.runtime.devices.process.sabotage import Point, sabotaged

SETTINGS = {"learning_rate": 0.1, "momentum": 0.9}
Train = Callable[[mx.Module, Sequence[mx.io.DataBatch]], Awaitable[None]]


async def by_steps(mod: mx.Module, data: Sequence[mx.io.DataBatch]) -> None:
    for batch in data:
        await mod.step(batch)


async def by_hand(mod: mx.Module, data: Sequence[mx.io.DataBatch]) -> None:
    for batch in data:
        await mod.forward_backward(batch)
        await mod.update()


def group_of(mod: mx.Module) -> Any:
    return mod.core.need_executors("test").first.group


async def continued(
    mod: mx.Module, kept: list[int], path: Path, optimizer: Any = None
) -> mx.Module:
    """Another module on some of the contexts, in the state of this one."""
    other = mx.Module(
        mod.symbol,
        label_names=mod.label_names,
        state_names=mod.inside.state_names,
        context=[mod.contexts[i] for i in kept],
    )
    await other.bind(mod.data_shapes, mod.label_shapes)
    await other.set_params(*await mod.get_params())
    await other.init_optimizer(optimizer=optimizer or "sgd", optimizer_params=SETTINGS)
    await mod.save_optimizer_states(path)
    await other.load_optimizer_states(path)
    old, new = (
        group_of(mod),
        other.core.need_executors("test").first.group,
    )
    statistics = await old.read_device_auxiliaries()
    await new.write_share_auxiliaries([statistics[i] for i in kept])
    new.training_forwards = old.training_forwards
    other.core.need_executors("test").reseed(
        mod.core.need_executors("test").template.seed
    )
    return other


async def left(mod: mx.Module) -> Any:
    """All that a training leaves behind."""
    group = group_of(mod)
    assert mod.core.optimization is not None
    return (
        await mod.get_params(),
        await group.read_device_auxiliaries(),
        await group.read_updater_states(mod.core.optimization.updater),
        await mod.get_outputs(),
        group.training_forwards,
        mod.core.optimization.optimizer.get_state(),
    )


def equal(got: Any, expected: Any) -> bool:
    *arrays, forwards, counts = got
    *others, other_forwards, other_counts = expected
    return same(arrays, others) and (forwards, counts) == (other_forwards, other_counts)


def drops(lines: list[Any]) -> list[Any]:
    return [line for line in lines if "is dropped" in line["event"]]


def goes_on(
    point: Point,
    path: Path,
    step: int,
    how: Train = by_steps,
    policy: mx.WorkerPolicy | None = None,
    contexts: list[mx.Context] | None = None,
) -> None:
    """Lose a device at a step, and compare with a training without it from there on."""

    async def undisturbed() -> Any:
        mx.seed(5)
        all_of_them = await bound(devices(mx.cpu, "thread", 3))
        await how(all_of_them, batches()[:step])
        kept = [i for i in range(3) if i != point.index]
        rest = await continued(all_of_them, kept, path)
        await how(rest, batches()[step:])
        return await left(rest)

    async def disturbed() -> Any:
        mx.seed(5)
        given = contexts or devices(mx.cpu, "process", 3)
        mod = await bound(given, on_worker_death="drop")
        await how(mod, batches())
        assert mod.contexts == [c for c in given if c.device_id != point.index]
        dropped = [actor for actor in actors() if actor.device_id not in mod.contexts]
        assert [actor.pid for actor in dropped] == [None]
        assert not dropped[0]._device.worker.programs
        return await left(mod)

    expected = mx.run(undisturbed)
    with sabotaged(point), capture_logs() as lines:
        got = mx.run(disturbed, workers=policy)
    assert equal(got, expected)
    (told,) = drops(lines)
    assert (told["device"], told["step"]) == (f"cpu({point.index})", step)


def actors() -> list[Any]:
    runtime = current_runtime()
    assert runtime is not None
    return list(runtime._actors.values())


@pytest.mark.parametrize(
    ("section", "row", "index"),
    [
        ("forward", 1, 0),
        ("backward", 5, 1),
        pytest.param("step", "ended", 2, marks=pytest.mark.slow),
        ("commit", 1, 1),
        pytest.param("commit", "ended", 0, marks=pytest.mark.slow),
        ("update", "saved", 0),
        pytest.param("update", 1, 1, marks=pytest.mark.slow),
        ("update", "ended", 2),
    ],
)
def test_killed_in_a_step(
    section: str, row: int | str, index: int, tmp_path: Path
) -> None:
    point = Point(section, (row,), launch=3, index=index)
    goes_on(point, tmp_path / "states", step=2)


@pytest.mark.slow
def test_a_worker_that_hangs_is_dropped(tmp_path: Path) -> None:
    point = Point("backward", (3,), launch=2, index=1, signal=signal.SIGSTOP)
    policy = mx.WorkerPolicy(heartbeat=3.0)
    goes_on(point, tmp_path / "states", step=1, policy=policy)


def test_killed_while_idle(tmp_path: Path) -> None:
    """What was under way has ended: the next call goes on over the rest."""

    async def main() -> None:
        mx.seed(5)
        mod = await bound(devices(mx.cpu, "process", 3), on_worker_death="drop")
        await mod.step(batches()[0])
        before, outputs = await mod.get_params(), await mod.get_outputs()
        await killed_idle(1)
        assert same(await mod.get_params(), before)
        assert same(await mod.get_outputs(), outputs)
        await mod.step(batches()[1])
        assert len(mod.contexts) == 2
        mx.seed(5)
        other = await bound(devices(mx.cpu, "thread", 3))
        await other.step(batches()[0])
        rest = await continued(other, [0, 2], tmp_path / "states")
        await rest.step(batches()[1])
        assert equal(await left(mod), await left(rest))

    mx.run(main)


def test_two_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        mx.seed(5)
        first, second, *_ = batches()
        mod = await bound(devices(mx.cpu, "process", 3), on_worker_death="drop")
        await mod.step(first)
        for actor in actors()[:2]:
            os.kill(actor.pid, signal.SIGKILL)
        await mod.step(second)
        assert mod.contexts == [mx.cpu(2, worker="process")]
        mx.seed(5)
        other = await bound(devices(mx.cpu, "thread", 3))
        await other.step(first)
        rest = await continued(other, [2], tmp_path / "states")
        await rest.step(second)
        assert equal(await left(mod), await left(rest))

    mx.run(main)


def test_one_after_another_until_none_is_left() -> None:
    async def main() -> None:
        mx.seed(5)
        mod = await bound(devices(mx.cpu, "process", 3), on_worker_death="drop")
        for index, batch in enumerate(batches()[:2]):
            await mod.step(batch)
            await killed_idle(0)
            await mod.step(batch)
            assert [c.device_id for c in mod.contexts] == [*range(index + 1, 3)]
        before = await mod.get_params()
        await killed_idle(0)
        with pytest.raises(mx.errors.WorkerDied, match=r"of cpu\(2\)"):
            await mod.step(batches()[2])
        assert same(await mod.get_params(), before)
        # All of them again.
        await mod.bind(
            [("data", (BATCH, FEATURES))],
            [("softmax_label", (BATCH,))],
            force_rebind=True,
        )
        assert same((await mod.get_params())[0], before[0])
        await mod.step(batches()[2])
        assert [c.device_id for c in mod.contexts] == [0, 1, 2]

    mx.run(main)


async def added_up(mod: mx.Module) -> dict[str, Any]:
    """What all devices have added up over several batches, summed in their order."""
    assert mod.core.optimization is not None
    memory = group_of(mod).binding.memory
    update = memory.updates[mod.core.optimization.accumulating]
    sums = [update.programs.read_sums(index) for index in range(len(mod.contexts))]
    return {name: (sums[0][name] + sums[1][name]) + sums[2][name] for name in sums[0]}


async def hand_over(mod: mx.Module, sums: dict[str, Any]) -> None:
    """Let the first device go on from these sums, the other one from zero."""
    assert mod.core.optimization is not None
    group, updater = (
        group_of(mod),
        mod.core.optimization.accumulating,
    )
    await group.prepare(updater)
    programs = group.binding.memory.updates[updater].programs
    programs.write_sums(0, sums)
    programs.write_sums(1, {name: np.zeros_like(total) for name, total in sums.items()})


# Where gradients add up, batches 0 to 2, 3 to 5, and 6 to 8 make an update each.
@pytest.mark.parametrize(
    ("accumulate", "section", "launch", "step"),
    [
        (1, "forward", 6, 5),
        (1, "commit", 1, 0),
        pytest.param(1, "update", 6, 5, marks=pytest.mark.slow),
        pytest.param(3, "forward", 6, 5, marks=pytest.mark.slow),
        pytest.param(3, "backward", 4, 3, marks=pytest.mark.slow),
        (3, "add", 3, 4),
        (3, "update", 2, 5),
    ],
)
def test_two_steps_in_flight(
    accumulate: int, section: str, launch: int, step: int, tmp_path: Path
) -> None:
    """Neither is lost, nor done twice, nor do they change places."""
    data, label = rows(9 * BATCH)
    seen: list[tuple[int, float]] = []

    async def fit() -> Any:
        mx.seed(5)
        symbol, contexts = net(), devices(mx.cpu, "process", 3)

        def count(param: Any) -> None:
            seen.append((param.nbatch, param.eval_metric.get()[1]))

        async with mx.Module(symbol, context=contexts, on_worker_death="drop") as mod:
            history = await mod.fit(
                mx.io.NDArrayIter(data, label, BATCH),
                num_epoch=1,
                accumulate=accumulate,
                eval_metric="ce",
                arg_params=values(symbol),
                aux_params=aux_values(symbol),
                optimizer_params=SETTINGS,
                batch_end_callback=count,
            )
            assert mod.contexts == [contexts[0], contexts[2]]
            (event,) = history.events
            assert (event["event"], event["device"]) == ("drop", "cpu(1)")
            assert (event["epoch"], event["nbatch"], event["step"]) == (0, step, step)
            assert "SIGKILL" in event["reason"]
            return await mod.get_params()

    async def expected() -> Any:
        mx.seed(5)
        mod = await bound(devices(mx.cpu, "thread", 3))
        metric, counted = mx.metric.create("ce"), []
        batches = Accumulation(accumulate)
        for nbatch, begin in enumerate(range(0, len(data), BATCH)):
            if nbatch == step:
                sums = await added_up(mod) if batches.waits else {}
                mod = await continued(mod, [0, 2], tmp_path / "states")
                if sums:
                    await hand_over(mod, sums)
            part = slice(begin, begin + BATCH)
            if not batches.waits:
                batches = Accumulation(accumulate)
            one = None if accumulate == 1 else batches.next()
            batch = mx.io.DataBatch([data[part]], [label[part]])
            await (await mod.inside.dispatch_step(batch, one)).wait()
            metric.update([label[part]], await mod.get_outputs())
            counted.append((nbatch, metric.get()[1]))
        await mod.inside.synchronize()
        return await mod.get_params(), counted

    with sabotaged(Point(section, (1,), launch, index=1)), capture_logs() as lines:
        got = mx.run(fit)
    wanted, counted = mx.run(expected)
    assert same(got, wanted)
    assert seen == counted
    assert [line["step"] for line in drops(lines)] == [step]


@pytest.mark.parametrize(
    ("section", "row"),
    [("forward", 3), ("backward", 5), ("backward", "ended"), ("commit", 1)],
)
def test_killed_by_hand(section: str, row: int | str, tmp_path: Path) -> None:
    """A forward that is lost before its backward is done again over the rest."""
    point = Point(section, (row,), launch=2, index=1)
    goes_on(point, tmp_path / "states", step=1, how=by_hand)


def test_killed_in_a_forward_that_is_done_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second device dies while a forward moves from the first: it moves on."""
    run = RepeatedForward._run

    def killed(self: RepeatedForward, replica: Replica) -> None:
        if replica.index == 1 and len(self._new) == 2:
            pid = replica._device.worker.process.pid  # type: ignore[attr-defined]
            os.kill(pid, signal.SIGKILL)
        run(self, replica)

    monkeypatch.setattr(RepeatedForward, "_run", killed)

    async def main(worker: str, contexts: int, **settings: Any) -> Any:
        mx.seed(5)
        mod = await bound(devices(mx.cpu, worker, contexts), **settings)
        await mod.forward(batches()[0], is_train=True)
        await mod.backward()
        assert mod.contexts == [mx.cpu(0, worker=worker)]
        return await mod.get_grads(), await mod.get_outputs()

    expected = mx.run(main, "thread", 1)
    with sabotaged(Point("backward", (1,), index=1)):
        assert same(
            mx.run(lambda: main("process", 3, on_worker_death="drop")), expected
        )


def test_gradients_of_inputs_can_be_had_after_the_drop() -> None:
    async def main(worker: str, **settings: Any) -> Any:
        mx.seed(5)
        symbol = net()
        mod = mx.Module(symbol, context=devices(mx.cpu, worker, 3), **settings)
        shapes = [("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))]
        await mod.bind(*shapes, inputs_need_grad=True)
        await mod.init_params(arg_params=values(symbol), aux_params=aux_values(symbol))
        await mod.init_optimizer()
        await by_hand(mod, batches()[:1])
        return await mod.get_input_grads(), len(mod.contexts)

    expected, _ = mx.run(lambda: main("thread"))
    with sabotaged(Point("update", (1,), index=1)):
        got, left = mx.run(lambda: main("process", on_worker_death="drop"))
    assert same(got, expected)
    assert left == 2


def test_killed_in_an_update_by_hand(tmp_path: Path) -> None:
    """Gradients that all have computed are used, and outputs can still be had."""

    async def main(worker: str, **settings: Any) -> Any:
        mx.seed(5)
        mod = await bound(devices(mx.cpu, worker, 3), **settings)
        rest = None if settings else await continued(mod, [0, 2], tmp_path / "states")
        await by_hand(mod, batches()[:1])
        if rest is not None:
            await rest.forward(batches()[0])
        outputs = await (rest or mod).get_outputs()
        return await mod.get_params(), outputs, len(mod.contexts)

    parameters, outputs, _ = mx.run(lambda: main("thread"))
    with sabotaged(Point("update", (1,), index=1)):
        got = mx.run(lambda: main("process", on_worker_death="drop"))
    assert same(got[0][0], parameters[0])
    assert same(got[1], outputs)
    assert got[2] == 2


def added(worker: str, death: Point | None, kept: list[int] | None = None) -> Any:
    """Gradients that add up over three batches."""

    async def main() -> Any:
        mx.seed(5)
        symbol = net()
        settings: Any = {} if death is None else {"on_worker_death": "drop"}
        mod = mx.Module(symbol, context=devices(mx.cpu, worker, 3), **settings)
        shapes = [("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))]
        await mod.bind(*shapes, grad_req="add")
        await mod.init_params(arg_params=values(symbol), aux_params=aux_values(symbol))
        for nbatch, batch in enumerate(batches()[:3]):
            if kept is not None and nbatch == 1:
                carried = await group_of(mod).copy_state(None, placed)
                gradients = await mod.get_grads()
                seed, count = group_of(mod).seed, group_of(mod).training_forwards
                assert len(carried) == 3
                mod = mx.Module(symbol, context=devices(mx.cpu, worker, 2))
                await mod.bind(*shapes, grad_req="add")
                await mod.init_params(
                    arg_params=values(symbol), aux_params=aux_values(symbol)
                )
                zeros = {name: np.zeros_like(g) for name, g in gradients.items()}
                parts = [Carried({}, gradients), Carried({}, zeros)]
                await group_of(mod).write_carried(parts)
                group_of(mod).seed, group_of(mod).training_forwards = seed, count
            await mod.forward_backward(batch)
        return await mod.get_grads()

    if death is None:
        return mx.run(main)
    with sabotaged(death):
        return mx.run(main)


def placed(array: Any) -> Any:
    return np.empty(array.shape, array.dtype)


@pytest.mark.parametrize("section", ["forward", "backward", "commit"])
def test_gradients_that_add_up(section: str) -> None:
    """The dropped device's are not lost, and those of the others not added twice."""
    expected = added("thread", None, kept=[0, 2])
    got = added("process", Point(section, (1,), launch=2, index=1))
    assert same(got, expected)
