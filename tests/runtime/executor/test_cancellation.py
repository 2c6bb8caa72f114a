"""Every call of a group, cancelled at every task step, leaves a whole step behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import trio

from runtime.actors import open_runtime
from runtime.context import DeviceId
from runtime.executor.group import ExecutorGroup, GroupSpec
from tests.harness.cancellation import PLACES, GatePlace, cancel_at_every_step
from tests.runtime.executor.nets import (
    Arrays,
    Sgd,
    batch_of,
    devices,
    first_values,
    mlp_spec,
    open_group,
    same,
    snapshot,
)

WHERE = [
    devices("reference"),
    devices("reference", "reference"),
    devices("reference", "simulated"),
    devices("cpu"),
]


def named(where: tuple[DeviceId, ...]) -> str:
    return "+".join(map(str, where))


class Trained:
    """A group and what its parameters are after each number of steps."""

    def __init__(self, spec: GroupSpec, group: ExecutorGroup) -> None:
        self.spec = spec
        self.group = group
        self.sgd = Sgd(spec)
        self.batch = batch_of(spec)
        self.expected: list[Arrays] = []

    async def step(self) -> None:
        await self.group.step(self.batch, self.sgd.updater)

    async def forward_backward_update(self) -> None:
        await self.group.forward(self.batch, True)
        await self.group.backward()
        await self.group.update(self.sgd.updater)

    async def two_in_flight(self) -> None:
        """What a fit loop does, and how it leaves."""
        group, under_way = self.group, []
        await group.prepare(self.sgd.updater)
        try:
            for _ in range(3):
                await group.acquire_slot()
                under_way.append(group.dispatch_step(self.batch, self.sgd.updater))
                await under_way[-1].copied()
                if len(under_way) == 2:
                    await under_way.pop(0).outputs()
            while under_way:
                await under_way.pop(0).outputs()
        finally:
            while under_way:
                await under_way.pop().settle()

    async def check(self, finished: bool) -> None:
        """Parameters, momentum and counts are those after a whole number of steps."""
        state = await snapshot(self.group)
        momentum = await self.group.read_updater_states(self.sgd.updater)
        state |= {f"m {name}": v for name, v in momentum["momentum"].items()}
        assert same(state, self.expected[self.sgd.count])
        # All slots are free.
        for _ in range(self.spec.in_flight):
            with trio.fail_after(10):
                await self.group.acquire_slot()
        for _ in range(self.spec.in_flight):
            self.group.release_slot()


async def trajectory(spec: GroupSpec, steps: int) -> list[Arrays]:
    """Parameters and momentum after 0, 1, 2, ... undisturbed steps."""
    async with open_group(spec) as group:
        trained = Trained(spec, group)
        states = []
        for _ in range(steps):
            state = await snapshot(group)
            momentum = await group.read_updater_states(trained.sgd.updater)
            states.append(
                state | {f"m {n}": v for n, v in momentum["momentum"].items()}
            )
            await trained.step()
        return states


@pytest.mark.parametrize("where", WHERE, ids=named)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("inline", ["0", "1"])
@pytest.mark.parametrize(
    "call", [Trained.step, Trained.two_in_flight, Trained.forward_backward_update]
)
async def test_parameters_stand_at_a_step_boundary(
    where: tuple[DeviceId, ...],
    place: GatePlace,
    inline: str,
    call: Callable[[Trained], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASYNCMOD_INLINE", inline)
    spec = mlp_spec(where)
    async with open_runtime() as runtime:
        expected = await trajectory(spec, 80)
        async with open_group(spec) as group:
            trained = Trained(spec, group)
            trained.expected = expected
            steps = await cancel_at_every_step(
                lambda: call(trained), trained.check, runtime=runtime, place=place
            )
            assert steps >= 1
            before = trained.sgd.count
            await trained.step()
            assert trained.sgd.count == before + 1
            await trained.check(True)


@pytest.mark.parametrize("where", WHERE, ids=named)
@pytest.mark.parametrize("place", PLACES)
async def test_a_cancelled_bind_leaves_nothing(
    where: tuple[DeviceId, ...], place: GatePlace
) -> None:
    spec = mlp_spec(where)
    made: list[ExecutorGroup] = []
    async with open_runtime() as runtime, open_group(spec) as first:
        memory = first._memory
        values = await snapshot(first)

        async def bind() -> None:
            made.append(await ExecutorGroup.create(spec, runtime))

        async def bind_sharing() -> None:
            made.append(await ExecutorGroup.create(spec, runtime, first))

        async def check(finished: bool) -> None:
            while made:
                await made.pop().aclose()
            assert memory.users == 1
            assert same(values, await snapshot(first))

        for call in (bind, bind_sharing):
            steps = await cancel_at_every_step(
                call, check, runtime=runtime, place=place
            )
            assert steps > 3


@pytest.mark.parametrize("where", WHERE, ids=named)
@pytest.mark.parametrize("place", PLACES)
async def test_parameters_are_written_whole_or_not(
    where: tuple[DeviceId, ...], place: GatePlace
) -> None:
    spec = mlp_spec(where, batch_norm=True)
    async with open_runtime() as runtime, open_group(spec) as group:
        versions = [first_values(group, seed) for seed in range(60)]
        flat = [parameters for parameters, _ in versions]
        turn = 0

        async def write() -> None:
            nonlocal turn
            turn += 1
            await group.write_parameters(*versions[turn])

        async def check(finished: bool) -> None:
            parameters, _ = await group.read_parameters()
            assert any(
                same(parameters, version) for version in flat[turn - 1 : turn + 1]
            )
            if finished:
                assert same(parameters, flat[turn])
            await group.write_parameters(*versions[turn])

        await group.write_parameters(*versions[0])
        await cancel_at_every_step(write, check, runtime=runtime, place=place)


@pytest.mark.parametrize("where", WHERE, ids=named)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "name", ["predict", "outputs", "gradients", "read_parameters", "zero_gradients"]
)
async def test_reading_can_be_cancelled_anywhere(
    where: tuple[DeviceId, ...], place: GatePlace, name: str
) -> None:
    spec = mlp_spec(where)
    async with open_runtime() as runtime, open_group(spec) as group:
        batch = batch_of(spec)
        await group.forward(batch, True)
        await group.backward()
        arguments: tuple[Any, ...] = (batch,) if name == "predict" else ()
        [out] = await group.outputs()

        async def call() -> None:
            await getattr(group, name)(*arguments)

        async def check(finished: bool) -> None:
            [again] = await group.outputs()
            np.testing.assert_array_equal(again, out)

        await cancel_at_every_step(call, check, runtime=runtime, place=place)


@pytest.mark.parametrize("place", PLACES)
async def test_a_cancelled_close_closes_all_the_same(place: GatePlace) -> None:
    spec = mlp_spec(devices("reference", "reference"))
    async with open_runtime() as runtime:
        groups: list[ExecutorGroup] = []

        async def make_and_close() -> None:
            with trio.CancelScope(shield=True):
                groups.append(await ExecutorGroup.create(spec, runtime))
            await groups[-1].aclose()

        async def check(finished: bool) -> None:
            group = groups.pop()
            if group._calls.closed:
                with trio.fail_after(10):
                    await group._calls.crew.run("after", [lambda: None] * 2)
                assert not any(s.segments for s in group._memory.storage)
            await group.aclose()

        await cancel_at_every_step(make_and_close, check, runtime=runtime, place=place)
