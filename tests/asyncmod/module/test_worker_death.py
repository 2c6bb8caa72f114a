"""Workers that die in the middle of something: nothing is lost, all bits are equal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from structlog.testing import capture_logs

import asyncmod as mx
from runtime.actors import current_runtime
from runtime.devices.process import process
from tests.asyncmod.module.nets import CLASSES, FEATURES, aux_values, rows, same, values
from tests.asyncmod.module.sparse_nets import embedding
from tests.asyncmod.module.test_cancellation import WHERE, Trained
from tests.harness.cancellation import PLACES, GatePlace, cancel_at_every_step
from tests.runtime.devices.process.sabotage import Point, sabotaged
from tests.timing import RUNS

BATCH = 8
LATE = 0.1  # ten times the time in which a death is to be seen
Train = Callable[[mx.Module], Awaitable[None]]


def net() -> mx.symbol.Symbol:
    """Batch norm and dropout between dense layers; two native rows per parameter."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=6, name="fc1")
    net = mx.sym.BatchNorm(net, name="bn")
    net = mx.sym.Dropout(mx.sym.Activation(net, act_type="tanh"), p=0.3, name="drop")
    net = mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def batches() -> list[mx.io.DataBatch]:
    return [
        mx.io.DataBatch([data], [label])
        for data, label in (rows(BATCH, seed) for seed in range(4))
    ]


async def by_steps(mod: mx.Module) -> None:
    for batch in batches():
        await mod.step(batch)


async def by_hand(mod: mx.Module) -> None:
    """Gradients of two batches are added up before each update."""
    for i, batch in enumerate(batches()):
        await mod.forward(batch)
        await mod.backward()
        if i % 2:
            await mod.update()
            await mod.zero_grad()


async def train(
    contexts: list[mx.Context], how: Train, optimizer: str = "sgd", **settings: Any
) -> Any:
    """Everything that a training leaves: parameters, states, gradients, outputs."""
    mx.seed(5)
    symbol = net()
    added = "add" if how is by_hand else "write"
    async with mx.Module(symbol, context=contexts, **settings) as mod:
        await mod.bind(
            [("data", (BATCH, FEATURES))],
            [("softmax_label", (BATCH,))],
            grad_req=added,
            inputs_need_grad=True,
        )
        await mod.init_params(arg_params=values(symbol), aux_params=aux_values(symbol))
        parameters = {"learning_rate": 0.1}
        if optimizer == "sgd":
            parameters["momentum"] = 0.9
        await mod.init_optimizer(optimizer=optimizer, optimizer_params=parameters)
        await how(mod)
        arguments, auxiliaries = await mod.get_params()
        return (
            arguments,
            auxiliaries,
            await mod.get_grads(),
            await mod.get_input_grads(),
            await mod.get_outputs(),
        )


async def bound_lazily(contexts: list[mx.Context], **settings: Any) -> mx.Module:
    """A module of which each step updates some rows of a table."""
    mx.seed(5)
    mod = mx.Module(embedding(50, 4), context=contexts, **settings)
    await mod.bind([("data", (BATCH, 2))], [("softmax_label", (BATCH,))])
    await mod.init_params()
    await mod.init_optimizer(
        optimizer="adam", optimizer_params={"learning_rate": 0.1, "wd": 0.01}
    )
    return mod


def words(seed: int) -> mx.io.DataBatch:
    generator = np.random.default_rng(seed)
    data = generator.integers(0, 50, (BATCH, 2)).astype(np.float32)
    return mx.io.DataBatch([data], [np.zeros(BATCH, np.float32)])


async def train_lazily(contexts: list[mx.Context], how: Train, optimizer: str) -> Any:
    """What a training leaves of which each step updates some rows of a table."""
    mod = await bound_lazily(contexts)
    for seed in range(4):
        await mod.step(words(seed))
    return await mod.get_params()


def devices(
    kind: Callable[..., mx.Context], worker: str, count: int = 2
) -> list[mx.Context]:
    return [kind(i, worker=worker) for i in range(count)]


def survives(
    point: Point,
    how: Train = by_steps,
    kind: Callable[..., mx.Context] = mx.cpu,
    optimizer: str = "sgd",
    words: str = "was killed by SIGKILL",
    policy: mx.WorkerPolicy | None = None,
    training: Callable[..., Awaitable[Any]] = train,
    count: int = 2,
) -> None:
    """Train on threads, and on processes of which one dies there; compare."""

    async def main() -> None:
        expected = await training(devices(kind, "thread", count), how, optimizer)
        with sabotaged(point), capture_logs() as lines:
            got = await training(devices(kind, "process", count), how, optimizer)
        deaths = [line["event"] for line in lines if "takes over" in line["event"]]
        assert len(deaths) == len(point.rows)
        assert all(words in death for death in deaths)
        assert same(got, expected)

    mx.run(main, workers=policy or mx.WorkerPolicy(restarts=len(point.rows)))


# In each life at another row; the net is such that device 0 has 2 rows, device 1 has 6.
@pytest.mark.parametrize(
    ("index", "rows"),
    [(0, ("saving", "saved", 1, 2, "ended")), (1, (0, 1, 2, 3, 4, 5, 6))],
)
def test_killed_at_every_row_of_the_update(
    index: int, rows: tuple[int | str, ...]
) -> None:
    survives(Point("update", rows, index=index))


@pytest.mark.parametrize(("section", "rows"), [("prepare", (1,)), ("update", (1, 6))])
def test_killed_in_an_update_by_definitions(
    section: str, rows: tuple[int, ...]
) -> None:
    survives(Point(section, rows), kind=mx.reference, optimizer="adam")


def test_killed_in_an_update_of_some_rows() -> None:
    # Row 0 of the plan changes the table, 1 and 2 its mean and variance.
    point = Point("update", ("saved", 1, 2, "ended"), index=1)
    survives(point, training=train_lazily)


def test_rows_of_a_step_that_fails_are_taken_back(tmp_path: Path) -> None:
    async def main() -> None:
        with sabotaged(Point("update", (1,), launch=2, index=1)):
            mod = await bound_lazily(devices(mx.cpu, "process"), on_worker_death="fail")
            await mod.step(words(0))
            before = await state(mod, tmp_path / "before")
            with pytest.raises(mx.errors.WorkerDied):
                await mod.step(words(1))
            assert same(await state(mod, tmp_path / "after"), before)

    mx.run(main)


def test_killed_in_the_commit_of_statistics() -> None:
    survives(Point("commit", ("saved", 1, "ended"), index=1))


@pytest.mark.parametrize(
    ("section", "rows"),
    [("forward", (3,)), ("backward", (5, 11)), ("step", ("ended",))],
)
def test_killed_in_a_step(section: str, rows: tuple[int | str, ...]) -> None:
    survives(Point(section, rows, launch=2, index=1))


@pytest.mark.parametrize(
    ("section", "rows"),
    [
        ("forward", (3,)),
        ("backward", (5,)),
        ("step", ("ended",)),
        ("commit", ("saving", 1, "ended")),
        ("update", ("saving", 3, "ended")),
    ],
)
def test_killed_in_a_step_that_is_launched_as_one(
    section: str, rows: tuple[int | str, ...]
) -> None:
    """As it is where there is one device."""
    survives(Point(section, rows), count=1)


@pytest.mark.parametrize(
    ("section", "launch", "rows"),
    [
        ("forward", 2, (6, "ended")),
        ("backward", 1, ("saved", 6, "ended")),
        ("backward", 2, (6,)),
        ("update", 1, (2,)),
    ],
)
def test_killed_while_gradients_are_added_up(
    section: str, launch: int, rows: tuple[int | str, ...]
) -> None:
    survives(Point(section, rows, launch), by_hand)


async def bound(contexts: list[mx.Context], **settings: Any) -> mx.Module:
    """A module that can step; it belongs to the runtime."""
    symbol = net()
    mod = mx.Module(symbol, context=contexts, **settings)
    await mod.bind([("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))])
    await mod.init_params(arg_params=values(symbol), aux_params=aux_values(symbol))
    await mod.init_optimizer(optimizer_params={"learning_rate": 0.1, "momentum": 0.9})
    return mod


async def state(mod: mx.Module, path: Path) -> Any:
    """Parameters, statistics and the optimizer's states."""
    await mod.save_optimizer_states(path)
    data = await trio.Path(path).read_bytes()
    _, _, states = data.partition(b"\xa6states")  # behind the counts of steps
    assert states
    return *(await mod.get_params()), states


@pytest.mark.parametrize(("index", "count"), [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("section", ["forward", "commit", "update"])
def test_a_step_that_fails_is_no_step_on_any_device(
    section: str, index: int, count: int, tmp_path: Path
) -> None:
    """The other device has updated its part already, or not: nobody can tell."""

    async def main() -> None:
        mx.seed(5)
        first, second, *_ = batches()
        with sabotaged(Point(section, (1,), launch=2, index=index)):
            mod = await bound(devices(mx.cpu, "process", count), on_worker_death="fail")
            await mod.step(first)
            before = await state(mod, tmp_path / "before")
            with pytest.raises(mx.errors.WorkerDied, match=rf"of cpu\({index}\)"):
                await mod.step(second)
            assert same(await state(mod, tmp_path / "after"), before)
        # It goes on with the next call, as if the step had not been asked for.
        await mod.step(second)
        mx.seed(5)
        other = await bound(devices(mx.cpu, "thread", count))
        await other.step(first)
        await other.forward(second, is_train=True)  # it has used up random numbers
        await other.step(second)
        assert same(
            await state(mod, tmp_path / "p"), await state(other, tmp_path / "t")
        )

    mx.run(main)


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_that_cannot_begin_takes_no_other_one_back(
    count: int, tmp_path: Path
) -> None:
    async def main() -> None:
        contexts = devices(mx.cpu, "process", count)
        mod = await bound(contexts, on_worker_death="fail")
        await mod.step(batches()[0])
        before = await state(mod, tmp_path / "before")
        await killed_idle(0)
        with pytest.raises(mx.errors.WorkerDied, match="it was idle"):
            await mod.step(batches()[1])
        assert same(await state(mod, tmp_path / "after"), before)

    mx.run(main)


@pytest.mark.parametrize("index", [0, 1])
def test_a_backward_that_fails_commits_nothing(index: int, tmp_path: Path) -> None:
    async def main() -> None:
        first, second, *_ = batches()
        with sabotaged(Point("commit", (1,), launch=2, index=index)):
            mod = await bound(devices(mx.cpu, "process"), on_worker_death="fail")
            await mod.forward(first)
            await mod.backward()
            before = await state(mod, tmp_path / "before")
            await mod.forward(second)
            with pytest.raises(mx.errors.WorkerDied, match=rf"of cpu\({index}\)"):
                await mod.backward()
            assert same(await state(mod, tmp_path / "after"), before)

    mx.run(main)


@pytest.mark.parametrize(
    ("how", "section", "count"),
    [
        (mx.Module.forward_backward, "backward", 2),
        (mx.Module.forward_backward, "commit", 2),
        (mx.Module.step, "backward", 2),
        (mx.Module.step, "update", 2),
        (mx.Module.step, "update", 1),
    ],
)
def test_what_a_lost_pass_has_added_to_gradients_is_taken_back(
    how: Callable[..., Awaitable[None]], section: str, count: int
) -> None:
    async def main() -> None:
        first, second, *_ = batches()
        launch = 1 if section == "update" else 2
        with sabotaged(Point(section, (1,), launch, index=count - 1)):
            mod = mx.Module(
                net(), context=devices(mx.cpu, "process", count), on_worker_death="fail"
            )
            shapes = [("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))]
            await mod.bind(*shapes, grad_req="add")
            await mod.init_params()
            await mod.init_optimizer()
            await mod.forward_backward(first)
            before = await mod.get_grads()
            with pytest.raises(mx.errors.WorkerDied):
                await how(mod, second)
            assert same(await mod.get_grads(), before)

    mx.run(main)


def test_what_stages_have_added_to_gradients_is_taken_back() -> None:
    """The device that lives has gone back through its stage before the other dies."""
    with mx.AttrScope(ctx_group="first"):
        stages = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=6)
    with mx.AttrScope(ctx_group="second"):
        stages = mx.sym.FullyConnected(stages, num_hidden=CLASSES)
        stages = mx.sym.SoftmaxOutput(stages, name="softmax")

    async def main() -> None:
        first, second, *_ = batches()
        contexts = devices(mx.cpu, "process")
        groups = dict(zip(("first", "second"), contexts, strict=True))
        with sabotaged(Point("backward", (1,), launch=2, index=0)):
            mod = mx.Module(
                stages, context=contexts[0], group2ctxs=groups, on_worker_death="fail"
            )
            shapes = [("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))]
            await mod.bind(*shapes, grad_req="add")
            await mod.init_params()
            await mod.forward_backward(first)
            before = await mod.get_grads()
            with pytest.raises(mx.errors.WorkerDied):
                await mod.forward_backward(second)
            assert same(await mod.get_grads(), before)

    mx.run(main)


def test_more_deaths_than_are_borne_are_raised(tmp_path: Path) -> None:
    async def main() -> None:
        with sabotaged(Point("update", (1, 1, 1))):
            mod = await bound(devices(mx.cpu, "process"))
            before = await state(mod, tmp_path / "before")
            with pytest.raises(mx.errors.WorkerDied) as caught:
                await mod.step(batches()[0])
        assert any("died too often" in note for note in caught.value.__notes__)
        assert same(await state(mod, tmp_path / "after"), before)
        with pytest.raises(mx.errors.WorkerDied):
            await mod.step(batches()[0])

    mx.run(main, workers=mx.WorkerPolicy(restarts=2))


def test_fit_goes_on_over_deaths_at_random_moments() -> None:
    data, label = rows(8 * BATCH)

    async def fit(worker: str, kill: bool) -> Any:
        mx.seed(5)
        random = np.random.default_rng(9)
        symbol = net()
        async with mx.Module(symbol, context=devices(mx.cpu, worker)) as mod:

            def end_one(param: Any) -> None:
                if kill and param.nbatch % 3 == 1:
                    pid = worker_pids()[random.integers(2)]
                    os.kill(pid, signal.SIGKILL)

            await mod.fit(
                mx.io.NDArrayIter(data, label, BATCH),
                num_epoch=2,
                arg_params=values(symbol),
                aux_params=aux_values(symbol),
                optimizer_params={"learning_rate": 0.1, "momentum": 0.9},
                batch_end_callback=end_one,
            )
            return await mod.get_params()

    async def main() -> None:
        expected = await fit("thread", False)
        with capture_logs() as lines:
            got = await fit("process", True)
        assert same(got, expected)
        assert len([line for line in lines if "takes over" in line["event"]]) >= 3

    mx.run(main, workers=mx.WorkerPolicy(restarts=100))


def worker_pids() -> list[int]:
    runtime = current_runtime()
    assert runtime is not None
    return [pid for actor in runtime._actors.values() if (pid := actor.pid) is not None]


def test_a_worker_that_hangs_is_replaced() -> None:
    policy = mx.WorkerPolicy(heartbeat=0.5)
    point = Point("backward", (3,), launch=2, signal=signal.SIGSTOP)
    survives(point, words="it gave no sign of life", policy=policy)


def test_a_forward_that_died_with_its_worker_is_run_again() -> None:
    """With its own random numbers; unless its parameters are gone."""

    async def main() -> None:
        mx.seed(5)
        expected = await bound(devices(mx.cpu, "thread"))
        await expected.forward(batches()[0])
        await expected.backward()
        mx.seed(5)
        mod = await bound(devices(mx.cpu, "process"))
        await mod.forward(batches()[0])
        await killed_idle(0)
        await mod.backward()
        assert same(await mod.get_grads(), await expected.get_grads())
        assert same(await mod.get_params(), await expected.get_params())

        await mod.forward(batches()[1])
        await mod.set_params(values(mod.symbol, 8), aux_values(mod.symbol))
        await killed_idle(1)
        with pytest.raises(RuntimeError, match="run the forward again"):
            await mod.backward()
        await mod.forward(batches()[1])
        await mod.backward()

    mx.run(main)


async def killed_idle(index: int) -> float:
    """Kill a worker that has nothing to do, and wait until that is seen: seconds."""
    with capture_logs() as lines, trio.fail_after(60):
        begin = trio.current_time()
        os.kill(worker_pids()[index], signal.SIGKILL)
        while not lines:  # noqa: ASYNC110 - a log line is no event
            await trio.sleep(0.001)
        seconds = trio.current_time() - begin
    assert lines[0]["event"].endswith("has ended while it was idle")
    return seconds


def test_the_death_of_an_idle_worker_is_seen_at_once() -> None:
    async def main() -> None:
        await bound(devices(mx.cpu, "process", RUNS))
        assert min([await killed_idle(index) for index in range(RUNS)]) < LATE

    mx.run(main)


def test_what_cannot_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        mod = mx.Module(net(), context=devices(mx.cpu, "process"))
        with monkeypatch.context() as patch:
            patch.setattr(process, "COMMAND", ("-c", "import sys; sys.exit('no')"))
            with pytest.raises(mx.errors.WorkerDied, match="exit code 1") as caught:
                await mod.bind([("data", (BATCH, FEATURES))], [("softmax_label", (8,))])
            assert "its last words:\nno" in caught.value.__notes__
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python")
            mod = mx.Module(net(), context=mx.cpu(5, worker="process"))
            with pytest.raises(FileNotFoundError, match="/nowhere/python"):
                await mod.bind([("data", (BATCH, FEATURES))], [("softmax_label", (8,))])

    mx.run(main, workers=mx.WorkerPolicy(restarts=1))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", [Trained.step, Trained.manual, Trained.fit])
def test_training_that_is_cancelled_stands_at_a_step_boundary(
    call: Callable[[Trained], Awaitable[None]],
    place: GatePlace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(WHERE, "processes", devices(mx.cpu, "process"))

    async def main() -> None:
        runtime = current_runtime()
        trained = Trained("processes")
        await trained.prepare(100)
        await cancel_at_every_step(
            lambda: call(trained), trained.check, runtime=runtime, place=place
        )

    mx.run(main)


def test_a_bind_that_is_cancelled_leaves_nothing() -> None:
    async def main() -> None:
        modules: list[mx.Module] = []

        async def call() -> None:
            modules.append(mx.Module(net(), context=devices(mx.cpu, "process")))
            shapes = [("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))]
            await modules[-1].bind(*shapes)

        async def check(finished: bool) -> None:
            module = modules.pop()
            assert module.binded or not finished
            await module.aclose()
            runtime = current_runtime()
            assert runtime is not None
            for actor in runtime._actors.values():
                assert actor._device is None or not actor._device.worker.programs

        await cancel_at_every_step(call, check, runtime=current_runtime())

    mx.run(main)


@pytest.mark.parametrize("choice", ["resurrect", None])
def test_unknown_choices_are_refused(choice: Any) -> None:
    with pytest.raises(mx.errors.ArgumentError, match="on_worker_death"):
        mx.Module(net(), on_worker_death=choice)
