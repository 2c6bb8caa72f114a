"""A step in one launch gives what forward, backward, commit and update give."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.context import DeviceId
from runtime.devices.cpu.fused import FusedStep
from runtime.executor.collective import Update
from runtime.executor.group import ExecutorGroup, GroupSpec, InputSpec
from runtime.executor.replica import Replica
from runtime.kernels.cpu.library import load
from tests.conformance.nets import resnet
from tests.runtime.executor.nets import (
    Arrays,
    Sgd,
    batch_of,
    devices,
    mlp_spec,
    open_group,
    same,
    snapshot,
)

pytestmark = pytest.mark.skipif(
    not load().beside_threads, reason="one core, or no kernels: nothing is fused"
)

ONE = devices("cpu")
TWO = devices("cpu", "cpu")
THREE = devices("cpu", "cpu", "cpu")


@pytest.fixture(autouse=True)
def on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMOD_INLINE", "0")


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each fused launch updated; empty if nothing is fused."""
    launch, seen = FusedStep.launch, list[bool]()

    def counted(self: FusedStep, *args: Any) -> Any:
        phases = launch(self, *args)
        seen.append(phases.updated)
        assert phases.compute_seconds > 0
        assert phases.update_seconds >= 0
        return phases

    monkeypatch.setattr(FusedStep, "launch", counted)
    return seen


def resnet_spec(where: tuple[DeviceId, ...]) -> GroupSpec:
    """Convolutions and BatchNorm, whose statistics every step commits."""
    net = resnet()
    (data, shape), (label, _) = net.inputs.items()
    batch = 2 * len(where)
    graph = net.symbol.graph
    names = [n.name for n in graph.arguments if n.name not in net.inputs]
    return GroupSpec(
        graph,
        where,
        (1.0,) * len(where),
        (InputSpec(data, (batch, *shape[1:])),),
        (InputSpec(label, (batch,)),),
        gradients=dict.fromkeys(names, "write"),
    )


def random_batch(spec: GroupSpec, seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    data, label = spec.inputs
    return {
        data.name: random.standard_normal(data.shape, np.float32),
        label.name: random.integers(0, 3, label.shape).astype(np.float32),
    }


async def trained(spec: GroupSpec, batches: list[Arrays], piped: bool) -> Arrays:
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        for batch in batches:
            if piped:
                await group.acquire_slot()
                pending = group.dispatch_step(batch, sgd.updater)
                values = dict(enumerate(await pending.outputs()))
            else:
                await group.step(batch, sgd.updater)
                values = dict(enumerate(await group.outputs()))
        states = await group.read_updater_states(sgd.updater)
        gradients = await group.gradients()
        predicted = await group.predict(batches[0])  # from the newest weights
        await group.forward(batches[0], is_train=True)
        forward = await group.outputs()
        return {
            **await snapshot(group),
            **{f"output {k}": value for k, value in values.items()},
            **{f"momentum of {n}": v for n, v in states["momentum"].items()},
            **{f"gradient of {n}": v for n, v in gradients.items()},
            **{f"predicted {k}": value for k, value in enumerate(predicted)},
            **{f"forward {k}": value for k, value in enumerate(forward)},
        }


async def apart(spec: GroupSpec, batches: list[Arrays], piped: bool) -> Arrays:
    """The same with the phases launched one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "fusible", lambda self, replicas: ())
        return await trained(spec, batches, piped)


@pytest.mark.parametrize("piped", [False, True], ids=["single", "piped"])
@pytest.mark.parametrize("where", [ONE, TWO, THREE], ids=len)
@pytest.mark.parametrize("make", [mlp_spec, resnet_spec])
async def test_bit_for_bit_as_apart(
    make: Any, where: tuple[DeviceId, ...], piped: bool, launches: list[bool]
) -> None:
    spec = make(where)
    batches = [random_batch(spec, seed) for seed in range(4)]
    fused = await trained(spec, batches, piped)
    assert launches == [True] * 4 * len(where)
    assert same(fused, await apart(spec, batches, piped))
    assert len(launches) == 4 * len(where)


def fortran(array: NDArray[Any]) -> NDArray[Any]:
    return np.asfortranarray(array)


def doubled(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float64)


def every_second(array: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(array, 2, axis=0)[::2]


@pytest.mark.parametrize("change", [fortran, doubled, every_second])
async def test_inputs_that_are_no_plain_copy(change: Any, launches: list[bool]) -> None:
    spec = mlp_spec(TWO)
    batches = [batch_of(spec, seed) for seed in range(3)]
    changed = [{n: change(value) for n, value in b.items()} for b in batches]
    result = await trained(spec, changed, piped=False)
    assert all(launches)
    assert launches
    assert same(result, await apart(spec, batches, piped=False))


async def test_inputs_that_are_not_given_keep_their_values(
    launches: list[bool],
) -> None:
    spec = mlp_spec(TWO)
    first, second = batch_of(spec, 0), batch_of(spec, 1)
    whole = [first, {**first, "data": second["data"]}]
    in_parts = [first, {"data": second["data"]}]
    result = await trained(spec, in_parts, piped=False)
    assert launches
    assert same(result, await apart(spec, whole, piped=False))


async def test_large_inputs_are_given_back_before_the_step_ends(
    launches: list[bool],
) -> None:
    spec = mlp_spec(TWO, batch=64, features=8192)  # 2 MB
    batches = [batch_of(spec, seed) for seed in range(3)]
    result = await trained(spec, batches, piped=True)
    assert launches
    assert same(result, await apart(spec, batches, piped=True))


async def test_a_device_that_is_late_is_waited_for(
    launches: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than native code waits."""
    spec = mlp_spec(TWO)
    batches = [batch_of(spec, seed) for seed in range(2)]
    parts = Replica._parts

    def late(self: Replica, inputs: Mapping[str, Any]) -> Any:
        if self.index == 1:
            time.sleep(0.05)
        return parts(self, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(Replica, "_parts", late)
        result = await trained(spec, batches, piped=False)
    assert launches == [True] * 4
    assert same(result, await apart(spec, batches, piped=False))


@pytest.mark.parametrize("index", [0, 1])
async def test_a_device_that_fails_is_not_waited_for(
    index: int, launches: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = mlp_spec(TWO)
    parts = Replica._parts

    def failing(self: Replica, inputs: Mapping[str, Any]) -> Any:
        if self.index == index:
            raise MemoryError("injected")
        return parts(self, inputs)

    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.step(batch_of(spec, 0), sgd.updater)
        before = await snapshot(group)
        with monkeypatch.context() as patch:
            patch.setattr(Replica, "_parts", failing)
            with pytest.raises(MemoryError, match="injected") as caught:
                await group.step(batch_of(spec, 1), sgd.updater)
        assert f"on cpu({index})" in caught.value.__notes__
        assert launches == [True, True, False]
        assert same(before, await snapshot(group))
        assert sgd.count == 1
        await group.step(batch_of(spec, 1), sgd.updater)
        after = await snapshot(group)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        for seed in range(2):
            await group.step(batch_of(spec, seed), sgd.updater)
        assert same(after, await snapshot(group))


async def test_programs_of_a_forgotten_updater_are_let_go() -> None:
    spec = mlp_spec(TWO)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.step(batch_of(spec, 0), sgd.updater)
        assert [len(r._fused) for r in replicas_of(group)] == [1, 1]
        await group.forget(sgd.updater)
        assert [len(r._fused) for r in replicas_of(group)] == [0, 0]
        other = Sgd(spec)
        await group.step(batch_of(spec, 0), other.updater)


def replicas_of(group: ExecutorGroup) -> tuple[Any, ...]:
    return group._replicas


async def test_idle_devices_prevent_it(launches: list[bool]) -> None:
    spec = mlp_spec(TWO, workload=(1.0, 1e-3))
    async with open_group(spec) as group:
        await group.step(batch_of(spec, 0), Sgd(spec).updater)
    assert launches == []
