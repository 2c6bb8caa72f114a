"""A device that is dropped, with every kind of update, gradient and input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from runtime.executor.accumulation import Accumulation
from runtime.executor.spread import zero
from tests.asyncmod.module.nets import same
from tests.asyncmod.module.sparse_nets import embedding, factorization_machine
from tests.asyncmod.module.test_sparse_worker_death import FEATURES, csr_batch
from tests.asyncmod.module.test_worker_death import BATCH, batches, bound, devices
from tests.asyncmod.module.test_worker_drop import (
    added_up,
    continued,
    equal,
    group_of,
    left,
)
from tests.runtime.devices.process.sabotage import Point, sabotaged

pytestmark = pytest.mark.filterwarnings("ignore:Optimizer created manually")
slow = pytest.mark.slow

OPTIMIZERS: dict[str, Callable[..., mx.optimizer.Optimizer]] = {
    "adam": lambda **common: mx.optimizer.Adam(wd=0.01, **common),
    "lamb": lambda **common: mx.optimizer.LAMB(**common),
    "lars": lambda **common: mx.optimizer.LARS(momentum=0.9, **common),
    "lbsgd": lambda **common: mx.optimizer.LBSGD(momentum=0.9, batch_scale=2, **common),
}


def made(optimizer: str) -> mx.optimizer.Optimizer:
    return OPTIMIZERS[optimizer](learning_rate=0.1, rescale_grad=1 / BATCH)


async def go_on(old: mx.Module, path: Path, optimizer: str) -> mx.Module:
    """The same training on two of the devices, with what all three have added up."""
    mod = await continued(old, [0, 2], path, made(optimizer))
    if old.inside.state_names:
        await mod.set_states(await old.get_states())
    assert old.core.optimization is not None
    assert mod.core.optimization is not None
    if old.core.optimization.accumulating in group_of(old).binding.memory.updates:
        sums = await added_up(old)
        updater = mod.core.optimization.accumulating
        await group_of(mod).prepare(updater)
        programs = group_of(mod).binding.memory.updates[updater].programs
        programs.write_sums(0, sums)
        programs.write_sums(1, {name: zero(total) for name, total in sums.items()})
    return mod


async def by_hand(mod: mx.Module, batch: mx.io.DataBatch) -> None:
    await mod.forward_backward(batch)
    await mod.update()


def goes_on(
    bind: Callable[..., Any],
    data: Sequence[mx.io.DataBatch],
    optimizer: str,
    point: Point,
    path: Path,
    *,
    step: int,
    accumulate: int = 1,
    kind: Callable[..., mx.Context] = mx.cpu,
    how: Callable[..., Any] = mx.Module.step,
) -> None:
    """Lose a device at a step, and compare with a training without it from there on."""

    async def train(worker: str, until: int | None, **settings: Any) -> Any:
        mx.seed(5)
        mod = await bind(devices(kind, worker, 3), **settings)
        await mod.init_optimizer(optimizer=made(optimizer), force_init=True)
        parts = Accumulation(accumulate)
        for nbatch, batch in enumerate(data):
            if nbatch == until:
                mod = await go_on(mod, path, optimizer)
            if accumulate == 1:
                await how(mod, batch)
                continue
            if not parts.waits:
                parts = Accumulation(accumulate)
            await (await mod.inside.dispatch_step(batch, parts.next())).wait()
        assert len(mod.contexts) == 2
        return await left(mod), await mod.get_states()

    expected, states = mx.run(train, "thread", step)
    with sabotaged(point):
        got, others = mx.run(lambda: train("process", None, on_worker_death="drop"))
    assert equal(got, expected)
    assert same(others, states)


@pytest.mark.parametrize(
    ("optimizer", "kind", "section", "launch", "accumulate", "step"),
    [
        ("lars", mx.cpu, "update", 3, 1, 2),
        ("lamb", mx.cpu, "update", 3, 1, 2),
        ("lbsgd", mx.cpu, "update", 3, 1, 2),
        pytest.param("lbsgd", mx.cpu, "update", 2, 2, 3, marks=slow),
        pytest.param("lbsgd", mx.cpu, "forward", 2, 2, 1, marks=slow),
        pytest.param("lars", mx.reference, "prepare", 3, 1, 2, marks=slow),
        ("lamb", mx.reference, "prepare", 2, 2, 3),
    ],
)
def test_updates_of_whole_parameters(
    optimizer: str,
    kind: Callable[..., mx.Context],
    section: str,
    launch: int,
    accumulate: int,
    step: int,
    tmp_path: Path,
) -> None:
    point = Point(section, (1,), launch, index=1)
    path = tmp_path / "states"
    data = batches()
    goes_on(
        bound, data, optimizer, point, path, step=step, accumulate=accumulate, kind=kind
    )


async def table(contexts: list[mx.Context], **settings: Any) -> mx.Module:
    """Bound, with a row-sparse gradient."""
    mod = mx.Module(embedding(50, 4), context=contexts, **settings)
    await mod.bind([("data", (BATCH, 2))], [("softmax_label", (BATCH,))])
    await mod.init_params(mx.init.One())
    return mod


def words(seed: int) -> mx.io.DataBatch:
    generator = np.random.default_rng(seed)
    data = generator.integers(0, 50, (BATCH, 2)).astype(np.float32)
    return mx.io.DataBatch([data], [generator.integers(0, 3, BATCH).astype(np.float32)])


@pytest.mark.parametrize(
    ("section", "launch", "accumulate", "step"),
    [
        pytest.param("forward", 3, 1, 2, marks=slow),
        ("update", 3, 1, 2),
        pytest.param("forward", 4, 2, 3, marks=slow),
        ("add", 2, 2, 3),
        pytest.param("update", 2, 2, 3, marks=slow),
    ],
)
def test_row_sparse_gradients(
    section: str, launch: int, accumulate: int, step: int, tmp_path: Path
) -> None:
    point = Point(section, (1,), launch, index=1)
    path = tmp_path / "states"
    data = [words(seed) for seed in range(5)]
    goes_on(table, data, "adam", point, path, step=step, accumulate=accumulate)


async def factors(contexts: list[mx.Context], **settings: Any) -> mx.Module:
    """Bound, with CSR data."""
    net = factorization_machine(FEATURES, 3, mx.init.Normal(0.1))
    mod = mx.Module(net, label_names=["label"], context=contexts, **settings)
    await mod.bind([("data", (BATCH, FEATURES))], [("label", (BATCH,))])
    await mod.init_params(mx.init.One())
    return mod


@pytest.mark.parametrize(
    ("how", "section"),
    [
        pytest.param(mx.Module.step, "update", marks=slow),
        (by_hand, "backward"),
    ],
)
def test_csr_data(how: Callable[..., Any], section: str, tmp_path: Path) -> None:
    """Also of a forward that is done again before its backward."""
    point = Point(section, (1,), 2, index=1)
    path = tmp_path / "states"
    data = [csr_batch(seed) for seed in (1, 3, 0)]
    goes_on(factors, data, "adam", point, path, step=1, how=how)


COUNT = 7  # rows, of which two and three devices have others


async def multiplied(contexts: list[mx.Context], **settings: Any) -> mx.Module:
    """Bound, with a state input that is set."""
    out = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    out = mx.sym.LinearRegressionOutput(out * mx.sym.Variable("state"), name="softmax")
    mod = mx.Module(out, state_names=["state"], context=contexts, **settings)
    await mod.bind([("data", (COUNT, 3))], [("softmax_label", (COUNT, 2))])
    await mod.init_params(mx.init.One())
    state = np.arange(2 * COUNT, dtype=np.float32).reshape(COUNT, 2)
    await mod.set_states([state / COUNT])
    return mod


@pytest.mark.parametrize("how", [mx.Module.step, by_hand])
def test_state_inputs(how: Callable[..., Any], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    data = [
        mx.io.DataBatch(
            [generator.normal(size=(COUNT, 3)).astype(np.float32)],
            [generator.normal(size=(COUNT, 2)).astype(np.float32)],
        )
        for _ in range(3)
    ]
    point = Point("backward", (1,), 2, index=1)
    goes_on(multiplied, data, "adam", point, tmp_path / "states", step=1, how=how)
