"""Updates by several batches: what a failed or withdrawn batch means to the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtime.context import DeviceId
from runtime.errors import DeviceError
from runtime.executor.accumulation import Accumulation, Part
from runtime.executor.group import ExecutorGroup, Pending, Updater
from tests.runtime.executor.fragile import failing_on, hooked
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

SEVERAL = [
    devices("reference"),
    devices("cpu", "cpu"),
    devices("reference", "simulated", "reference"),
]


def named(where: tuple[DeviceId, ...]) -> str:
    return "+".join(map(str, where))


def accumulating(sgd: Sgd) -> Updater:
    updater = sgd.updater
    return replace(updater, shares=updater, accumulates=updater.parameters)


async def dispatch(
    group: ExecutorGroup, updater: Updater, part: Part, seed: int
) -> Pending:
    await group.acquire_slot()
    inputs = batch_of(group.spec, seed)
    return group.dispatch_step(inputs, updater, part=part)


async def whole(group: ExecutorGroup, updater: Updater, *seeds: int) -> None:
    """One update by these batches."""
    accumulation = Accumulation(len(seeds))
    for seed in seeds:
        step = await dispatch(group, updater, accumulation.next(), seed)
        await step.wait()


@pytest.mark.parametrize("where", SEVERAL, ids=named)
async def test_a_batch_that_fails_on_one_device_ends_its_accumulation(
    where: tuple[DeviceId, ...],
) -> None:
    """No update leaves a batch out, and the next accumulation begins anew."""
    spec = mlp_spec(where, fragile=True)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        updater = accumulating(sgd)
        await group.prepare(updater)
        await whole(group, updater, 0, 1)
        before = await snapshot(group)
        assert sgd.count == 1
        accumulation = Accumulation(3)
        first = await dispatch(group, updater, accumulation.next(), 2)
        await first.wait()
        with hooked(failing_on(str(where[-1]))):
            second = await dispatch(group, updater, accumulation.next(), 3)
            third = await dispatch(group, updater, accumulation.next(), 4)
            with pytest.raises(ArithmeticError, match="injected"):
                await second.wait()
            with pytest.raises(DeviceError, match="an earlier batch of this update"):
                await third.wait()
        with pytest.raises(DeviceError, match="an earlier batch of this update"):
            await group.update(updater, accumulation.rest())
        assert same(before, await snapshot(group))
        assert sgd.count == 1
        await whole(group, updater, 2, 3)
        after = await snapshot(group)
    async with open_group(spec) as group:
        undisturbed = accumulating(Sgd(spec))
        await group.prepare(undisturbed)
        await whole(group, undisturbed, 0, 1)
        await whole(group, undisturbed, 2, 3)
        assert same(after, await snapshot(group))


@pytest.mark.parametrize("where", SEVERAL, ids=named)
async def test_a_withdrawn_batch_is_not_counted(where: tuple[DeviceId, ...]) -> None:
    spec = mlp_spec(where)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        updater = accumulating(sgd)
        await group.prepare(updater)
        accumulation = Accumulation(2)
        with held(group):
            steps = [
                await dispatch(group, updater, accumulation.next(), seed)
                for seed in range(2)
            ]
            assert sgd.count == 1
            assert not await steps[1].settle()
            assert sgd.count == 0
        await steps[0].wait()
        assert accumulation.failed == 2
        await whole(group, updater, 0, 1)
        after = await snapshot(group)
        assert sgd.count == 1
    async with open_group(spec) as group:
        undisturbed = accumulating(Sgd(spec))
        await group.prepare(undisturbed)
        await whole(group, undisturbed, 0, 1)
        assert same(after, await snapshot(group))


@pytest.mark.parametrize("where", SEVERAL, ids=named)
async def test_gradients_stay_those_of_the_last_batch(
    where: tuple[DeviceId, ...],
) -> None:
    """They are not what is added up; and states are those of the plain updater."""
    spec = mlp_spec(where)

    async with open_group(spec) as group:
        sgd = Sgd(spec)
        updater = accumulating(sgd)
        await group.prepare(updater)
        await whole(group, updater, 5, 6)
        got = await group.gradients()
        moments = await group.read_updater_states(sgd.updater)
        assert all(value.any() for value in moments["momentum"].values())
    async with open_group(spec) as group:
        await group.forward(batch_of(spec, 6), is_train=True)
        await group.backward()
        expected = await group.gradients()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)
