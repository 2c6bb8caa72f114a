"""A device that is dropped, in every kind of module and of call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

import asyncmod as mx
from runtime.devices.process import process
from tests.asyncmod.module.nets import FEATURES, aux_values, rows, same, values
from tests.asyncmod.module.test_worker_death import (
    BATCH,
    batches,
    bound,
    devices,
    killed_idle,
    net,
)
from tests.asyncmod.module.test_worker_drop import SETTINGS, continued, drops
from tests.runtime.devices.process.sabotage import Point, sabotaged


class Plain(mx.optimizer.Optimizer):
    """Momentum in Python: devices do not know its rule."""

    def create_state(self, index: Any, weight: Any) -> Any:
        return np.zeros_like(weight)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        self._update_count(index)
        state[:] = 0.9 * state - 0.1 * grad / BATCH
        weight[:] += state


async def trained(contexts: list[mx.Context], **settings: Any) -> mx.Module:
    """Bound and with an optimizer, on these contexts."""
    optimizer = settings.pop("optimizer", None)
    mod = await bound(contexts, **settings)
    if optimizer is not None:
        await mod.init_optimizer(optimizer=optimizer(), force_init=True)
    return mod


@pytest.mark.filterwarnings("ignore:Optimizer created manually")
@pytest.mark.parametrize("optimizer", [None, Plain])
@pytest.mark.parametrize("section", ["step", "commit", "update"])
def test_threads_beside_workers(section: str, optimizer: Any, tmp_path: Path) -> None:
    """The thread has committed and updated already, or not: it takes that back."""
    if optimizer is Plain and section == "update":
        section = "forward"  # such an optimizer runs on no device

    async def mixed() -> Any:
        mx.seed(5)
        contexts = [mx.cpu(0), mx.cpu(1, worker="process"), mx.cpu(2)]
        mod = await trained(contexts, on_worker_death="drop", optimizer=optimizer)
        for batch in batches():
            await mod.step(batch)
        assert mod.contexts == [mx.cpu(0), mx.cpu(2)]
        return await mod.get_params(), await mod.get_outputs()

    async def threads() -> Any:
        mx.seed(5)
        mod = await trained(devices(mx.cpu, "thread", 3), optimizer=optimizer)
        for nbatch, batch in enumerate(batches()):
            if nbatch == 1:
                made = None if optimizer is None else optimizer()
                mod = await continued(mod, [0, 2], tmp_path / "states", made)
            await mod.step(batch)
        return await mod.get_params(), await mod.get_outputs()

    expected = mx.run(threads)
    row = "ended" if section == "step" else 1
    with sabotaged(Point(section, (row,), launch=2, index=1)):
        assert same(mx.run(mixed), expected)


async def scored(mod: mx.Module, source: Any) -> Any:
    return await mod.score(source, "ce")


async def predicted(mod: mx.Module, source: Any) -> Any:
    return await mod.predict(source)


async def frozen(mod: mx.Module, source: Any) -> Any:
    return await mod.predict(source, snapshot=True)


@pytest.mark.parametrize("call", [scored, predicted, frozen])
@pytest.mark.parametrize("count", [6, 40_000])
def test_predictions(
    call: Callable[[mx.Module, Any], Any], count: int, tmp_path: Path
) -> None:
    """Batches of more and of less than 1 MB, in the middle of which a worker dies."""
    data, label = rows(4 * count)

    async def main(worker: str, kept: list[int], **settings: Any) -> Any:
        mx.seed(5)
        symbol = net()
        contexts = [devices(mx.cpu, worker, 3)[i] for i in kept]
        mod = mx.Module(symbol, context=contexts, **settings)
        await mod.bind([("data", (count, FEATURES))], [("softmax_label", (count,))])
        await mod.init_params(arg_params=values(symbol), aux_params=aux_values(symbol))
        got = await call(mod, mx.io.NDArrayIter(data, label, count))
        return got, len(mod.contexts)

    expected, _ = mx.run(lambda: main("thread", [0, 2]))
    with sabotaged(Point("predict", (1,), launch=3, index=1)), capture_logs() as lines:
        got, left = mx.run(lambda: main("process", [0, 1, 2], on_worker_death="drop"))
    assert got == expected if call is scored else same(got, expected)
    assert len(drops(lines)) == 1
    assert left == (3 if call is frozen else 2)


def test_large_batches_in_flight(tmp_path: Path) -> None:
    """Their arrays are the iterator's again before they are needed once more."""
    count = 40_000
    data, label = rows(6 * count)

    class Reusing(mx.io.NDArrayIter):
        """Gives every batch in the same arrays."""

        async def next(self) -> Any:
            batch = await super().next()
            for kept, given in zip(
                kept_arrays, (*batch.data, *batch.label), strict=True
            ):
                kept[...] = given
            return mx.io.DataBatch([kept_arrays[0]], [kept_arrays[1]])

    kept_arrays = np.empty_like(data[:count]), np.empty_like(label[:count])

    async def main(worker: str, **settings: Any) -> Any:
        mx.seed(5)
        symbol = net()
        async with mx.Module(
            symbol, context=devices(mx.cpu, worker, 3), **settings
        ) as mod:
            seen: list[int] = []
            await mod.fit(
                Reusing(data, label, count),
                num_epoch=1,
                arg_params=values(symbol),
                aux_params=aux_values(symbol),
                optimizer_params=SETTINGS,
                batch_end_callback=lambda param: seen.append(param.nbatch),
            )
            return await mod.get_params(), seen

    async def expected() -> Any:
        mx.seed(5)
        symbol = net()
        mod = mx.Module(symbol, context=devices(mx.cpu, "thread", 3))
        await mod.bind([("data", (count, FEATURES))], [("softmax_label", (count,))])
        await mod.init_params(arg_params=values(symbol), aux_params=aux_values(symbol))
        await mod.init_optimizer(optimizer_params=SETTINGS)
        for nbatch in range(6):
            if nbatch == 3:
                mod = await continued(mod, [0, 2], tmp_path / "states")
            part = slice(nbatch * count, (nbatch + 1) * count)
            await mod.step(mx.io.DataBatch([data[part]], [label[part]]))
        await mod.inside.synchronize()
        return await mod.get_params()

    wanted = mx.run(expected)
    with sabotaged(Point("forward", (1,), launch=4, index=1)):
        got, seen = mx.run(lambda: main("process", on_worker_death="drop"))
    assert same(got, wanted)
    assert seen == list(range(6))


def generated(key: int) -> Any:
    data = mx.sym.Variable("data")
    sums = mx.sym.sum(mx.sym.Reshape(data, shape=(0, key, FEATURES)), axis=1)
    net = mx.sym.FullyConnected(sums, num_hidden=3, name="fc")
    return mx.sym.SoftmaxOutput(net, name="softmax"), ("data",), ("softmax_label",)


def bucket(key: int, seed: int) -> mx.io.DataBatch:
    data, label = rows(BATCH, seed, key * FEATURES)
    return mx.io.DataBatch(
        [data],
        [label],
        bucket_key=key,
        provide_data=[mx.io.DataDesc("data", data.shape)],
        provide_label=[mx.io.DataDesc("softmax_label", label.shape)],
    )


def test_buckets_drop_it_together(tmp_path: Path) -> None:
    """Buckets that are there, and one that comes later."""
    keys = [4, 2, 4, 3, 2]

    async def main(worker: str, kill: bool, **settings: Any) -> Any:
        mx.seed(5)
        contexts = devices(mx.cpu, worker, 3)
        mod = mx.BucketingModule(generated, 4, context=contexts, **settings)
        first = bucket(4, 0)
        await mod.bind(first.provide_data, first.provide_label)
        await mod.init_params(mx.init.One())
        await mod.init_optimizer(optimizer_params=SETTINGS)
        for nbatch, key in enumerate(keys):
            if nbatch == 2 and kill:
                await killed_idle(1)
            if nbatch == 2 and not kill:
                parameters = await mod.get_params()
                await mod.save_optimizer_states(tmp_path / "states")
                rest = [contexts[0], contexts[2]]
                mod = mx.BucketingModule(generated, 4, context=rest)
                await mod.bind(first.provide_data, first.provide_label)
                await mod.set_params(*parameters)
                await mod.init_optimizer(optimizer_params=SETTINGS)
                await mod.load_optimizer_states(tmp_path / "states")
            await mod.step(bucket(key, nbatch))
        for one in mod._buckets:
            assert len(one.module.contexts) == 2
        assert len(mod.contexts) == 2
        return await mod.get_params(), await mod.get_outputs()

    expected = mx.run(lambda: main("thread", kill=False))
    got = mx.run(lambda: main("process", kill=True, on_worker_death="drop"))
    assert same(got, expected)


def chain(contexts: list[mx.Context], **settings: Any) -> mx.SequentialModule:
    below = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=6, name="fc1")
    below = mx.sym.Activation(below, act_type="tanh", name="act")
    above = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc2")
    above = mx.sym.SoftmaxOutput(above, name="softmax")
    mod = mx.SequentialModule()
    mod.add(mx.Module(below, label_names=None, context=contexts, **settings))
    mod.add(
        mx.Module(above, context=contexts, **settings),
        take_labels=True,
        auto_wiring=True,
    )
    return mod


@pytest.mark.parametrize(
    ("section", "launch"), [("forward", 3), ("forward", 4), ("backward", 3)]
)
def test_modules_in_sequence(section: str, launch: int, tmp_path: Path) -> None:
    """Launches of both are counted: in step 1 the first forward, and so on."""

    async def main(worker: str, **settings: Any) -> Any:
        contexts = devices(mx.cpu, worker, 3)
        mod = chain(contexts, **settings)
        await mod.bind([("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))])
        await mod.init_params(mx.init.One())
        await mod.init_optimizer(optimizer_params=SETTINGS)
        for nbatch, batch in enumerate(batches()):
            if nbatch == 1 and not settings:
                parameters = await mod.get_params()
                states = []
                for i, child in enumerate(mod._children):
                    states.append(tmp_path / str(i))
                    assert isinstance(child.module, mx.Module)
                    await child.module.save_optimizer_states(states[-1])
                mod = chain([contexts[0], contexts[2]])
                await mod.bind(
                    [("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))]
                )
                await mod.set_params(*parameters)
                await mod.init_optimizer(optimizer_params=SETTINGS)
                for path, child in zip(states, mod._children, strict=True):
                    assert isinstance(child.module, mx.Module)
                    await child.module.load_optimizer_states(path)
            await mod.step(batch)
        return await mod.get_params(), await mod.get_outputs()

    expected = mx.run(lambda: main("thread"))
    with sabotaged(Point(section, (1,), launch, index=1)), capture_logs() as lines:
        got = mx.run(lambda: main("process", on_worker_death="drop"))
    assert same(got, expected)
    assert len(drops(lines)) == 2


@pytest.mark.parametrize(
    ("kind", "section", "nbatch", "step"),
    [(mx.Module, "predict", 2, 2), (mx.SequentialModule, "backward", 0, 0)],
)
def test_the_history_tells_of_a_drop_once(
    kind: type, section: str, nbatch: int, step: int
) -> None:
    """In the validation it belongs behind the epoch's batches."""

    async def main() -> list[Any]:
        contexts = devices(mx.cpu, "process", 2)
        settings: Any = {"context": contexts, "on_worker_death": "drop"}
        mod = mx.Module(net(), **settings)
        if kind is mx.SequentialModule:
            mod = chain(contexts, on_worker_death="drop")
        data = mx.io.NDArrayIter(*rows(2 * BATCH), BATCH)
        first = await mod.fit(data, data, num_epoch=1)
        second = await mod.fit(data, num_epoch=1)
        assert second.events == []
        return first.events

    with sabotaged(Point(section, (1,), index=1)):
        (event,) = mx.run(main)
    assert (event["event"], event["device"], event["epoch"]) == ("drop", "cpu(1)", 0)
    assert (event["nbatch"], event["step"]) == (nbatch, step)


@pytest.mark.parametrize(
    ("section", "through_fit"), [("forward", True), ("update", False)]
)
def test_a_monitor_sees_a_lost_step_once(section: str, through_fit: bool) -> None:
    """As it is done again over the rest; not what was seen of it before."""

    async def main(worker: str, kept: list[int], **settings: Any) -> Any:
        mx.seed(5)
        with mx.name.NameManager():
            contexts = [devices(mx.cpu, worker, 3)[i] for i in kept]
            mod = await bound(contexts, **settings)
        monitor = mx.mon.Monitor(1)
        mod.install_monitor(monitor)
        monitor.tic()
        if through_fit:
            step = await mod.inside.dispatch_step(batches()[0])
            await step.wait()
        else:
            await mod.step(batches()[0])
        return monitor.toc()

    expected = mx.run(lambda: main("thread", [0, 2]))
    with sabotaged(Point(section, (1,), index=1)):
        got = mx.run(lambda: main("process", [0, 1, 2], on_worker_death="drop"))
    assert got == expected


def test_a_drop_is_told_though_the_validation_fails() -> None:
    histories: list[Any] = []

    def keep(param: Any) -> None:
        histories.append(param.locals["history"])

    def fail(param: Any) -> None:
        raise ArithmeticError("enough")

    async def main() -> None:
        contexts = devices(mx.cpu, "process", 2)
        mod = mx.Module(net(), context=contexts, on_worker_death="drop")
        data = mx.io.NDArrayIter(*rows(BATCH), BATCH)
        with pytest.raises(ArithmeticError):
            await mod.fit(
                data,
                data,
                num_epoch=1,
                batch_end_callback=keep,
                eval_end_callback=fail,
            )

    with sabotaged(Point("predict", (1,), index=1)):
        mx.run(main)
    assert histories[0].to_dict("events")["device"] == ["cpu(1)"]
    assert histories[0].epochs == []


def test_bind_raises_the_death_of_a_worker_that_it_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is under way yet; what was asked for are all contexts."""

    async def main() -> None:
        contexts = devices(mx.cpu, "process", 2)
        mod = mx.Module(net(), context=contexts, on_worker_death="drop")
        shapes = [("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))]
        with monkeypatch.context() as patch:
            patch.setattr(process, "COMMAND", ("-c", "import sys; sys.exit('no')"))
            with pytest.raises(mx.errors.WorkerDied, match="exit code 1"):
                await mod.bind(*shapes)
        assert not mod.binded
        await mod.bind(*shapes)
        assert mod.contexts == contexts

    mx.run(main)


def test_a_shape_that_comes_after_the_death(tmp_path: Path) -> None:
    """What is compiled then is compiled for the rest."""

    async def main() -> None:
        mx.seed(5)
        mod = await bound(devices(mx.cpu, "process", 3), on_worker_death="drop")
        await mod.step(batches()[0])
        mx.seed(5)
        other = await bound(devices(mx.cpu, "thread", 3))
        await other.step(batches()[0])
        rest = await continued(other, [0, 2], tmp_path / "states")
        await killed_idle(1)
        data, label = rows(5)
        for one in (mod, rest):
            await one.step(mx.io.DataBatch([data], [label]))
            await one.step(batches()[1])
        assert len(mod.contexts) == 2
        assert same(await mod.get_params(), await rest.get_params())

    mx.run(main)


def test_checkpoints_after_a_drop(tmp_path: Path) -> None:
    """They go on bit for bit over as many devices, and with a warning over others."""
    data, label = rows(8 * BATCH)

    async def fit(
        contexts: list[mx.Context], epochs: int, name: str, **settings: Any
    ) -> Any:
        mx.seed(5)
        symbol = net()
        async with mx.Module(symbol, context=contexts, **settings) as mod:
            await mod.fit(
                mx.io.NDArrayIter(data, label, BATCH),
                num_epoch=epochs,
                arg_params=values(symbol),
                aux_params=aux_values(symbol),
                optimizer_params=SETTINGS,
                checkpoint=mx.checkpoint.Checkpoint(tmp_path / name),
                resume="auto",
            )
            return await mod.get_params()

    three = devices(mx.cpu, "process", 3)
    point = Point("forward", (1,), launch=5, index=1)
    with sabotaged(point):
        expected = mx.run(lambda: fit(three, 2, "whole", on_worker_death="drop"))
    with sabotaged(point):
        mx.run(lambda: fit(three, 1, "part", on_worker_death="drop"))
    with capture_logs() as lines:
        got = mx.run(lambda: fit(devices(mx.cpu, "thread", 2), 2, "part"))
    assert same(got, expected)
    assert not [line for line in lines if line["log_level"] == "warning"]

    with sabotaged(point):
        mx.run(lambda: fit(three, 1, "other", on_worker_death="drop"))
    with capture_logs() as lines:
        mx.run(lambda: fit(devices(mx.cpu, "thread", 3), 2, "other"))
    assert any("saved on" in line["event"] for line in lines)


def test_what_does_not_go_together_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(
            mx.errors.ArgumentError, match="does not go with group2ctxs"
        ):
            mx.Module(net(), group2ctxs={"a": mx.cpu(1)}, on_worker_death="drop")
        shared = await bound(devices(mx.cpu, "process", 2), on_worker_death="drop")
        other = mx.Module(net(), context=devices(mx.cpu, "process", 2))
        with pytest.raises(mx.errors.ArgumentError, match="lose a context together"):
            await other.bind(
                shared.data_shapes, shared.label_shapes, shared_module=shared
            )

    mx.run(main)
