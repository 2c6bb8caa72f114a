"""Steps: all devices or none, in flight, withdrawn, and counted right."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import trio

from runtime.actors import open_runtime
from runtime.context import DeviceId
from runtime.errors import DeviceError
from runtime.executor.group import ExecutorGroup, GroupSpec, InputSpec, Pending, Updater
from tests.runtime.executor.fragile import Direction, failing_on, hooked
from tests.runtime.executor.nets import (
    Arrays,
    Sgd,
    batch_of,
    devices,
    first_values,
    held,
    mlp_spec,
    open_group,
    same,
    snapshot,
)

ONE = devices("reference")
TWO = devices("reference", "reference")
APART = devices("simulated", "simulated")
MIXED = devices("reference", "simulated", "reference")
SEVERAL = [TWO, APART, MIXED]


def named(where: tuple[DeviceId, ...]) -> str:
    return "+".join(map(str, where))


async def plain_steps(spec: GroupSpec, seeds: list[int]) -> Arrays:
    """What single steps with these batches give."""
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        for seed in seeds:
            await group.step(batch_of(spec, seed), sgd.updater)
        return await snapshot(group)


# Two phases ---------------------------------------------------------------------------


@pytest.mark.parametrize("where", SEVERAL, ids=named)
@pytest.mark.parametrize("direction", ["forward", "backward"])
async def test_if_one_device_fails_nothing_has_changed_anywhere(
    where: tuple[DeviceId, ...], direction: Direction
) -> None:
    spec = mlp_spec(where, batch_norm=True, fragile=True)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.step(batch_of(spec, 0), sgd.updater)
        before = await snapshot(group)
        last = str(where[-1])
        with (
            hooked(failing_on(last, direction)),
            pytest.raises(ArithmeticError, match="injected") as caught,
        ):
            await group.step(batch_of(spec, 1), sgd.updater)
        assert f"on {last}" in caught.value.__notes__
        assert any("`fragile`" in note for note in caught.value.__notes__)
        assert same(before, await snapshot(group))
        assert sgd.count == 1
        await group.step(batch_of(spec, 1), sgd.updater)
        after = await snapshot(group)
    assert same(after, await plain_steps(spec, [0, 1]))


@pytest.mark.parametrize("where", [TWO, APART], ids=named)
async def test_a_failed_backward_commits_nowhere(where: tuple[DeviceId, ...]) -> None:
    spec = mlp_spec(where, batch_norm=True, fragile=True)
    async with open_group(spec) as group:
        before = await snapshot(group)
        await group.forward(batch_of(spec), True)
        with hooked(failing_on(str(where[1]))), pytest.raises(ArithmeticError):
            await group.backward()
        assert same(before, await snapshot(group))


async def test_several_failing_devices_are_all_named() -> None:
    spec = mlp_spec(TWO, fragile=True)

    def fail(name: str, direction: Direction) -> None:
        raise ArithmeticError(name)

    async with open_group(spec) as group:
        with hooked(fail), pytest.raises(ArithmeticError) as caught:
            await group.step(batch_of(spec), Sgd(spec).updater)
        assert str(caught.value) == "reference(0)"
        assert "also on reference(1)" in "".join(caught.value.__notes__)


async def test_wrong_numbers_from_the_optimizer_change_nothing() -> None:
    spec = mlp_spec(TWO, batch_norm=True)
    async with open_group(spec) as group:
        names = Sgd(spec).names
        updater = Updater("sgd", names, ("momentum",), hyper=lambda: np.zeros((1, 5)))
        before = await snapshot(group)
        with pytest.raises(ValueError, match="hyper"):
            await group.step(batch_of(spec), updater)
        assert same(before, await snapshot(group))


async def test_an_update_that_fails_in_its_middle_is_not_built_upon() -> None:
    spec = mlp_spec(TWO)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        program: Any = group._memory.updates[sgd.updater].programs.of(1)[0]
        launch = program.launch

        def fail(section: str) -> None:
            if section == "update":
                raise MemoryError("no memory")
            launch(section)

        program.launch = fail
        with pytest.raises(MemoryError):
            await group.step(batch_of(spec), sgd.updater)
        del program.launch
        with pytest.raises(DeviceError, match="set all of them anew"):
            await group.step(batch_of(spec), sgd.updater)
        await group.write_parameters(*first_values(group))
        await group.step(batch_of(spec), sgd.updater)
        assert sgd.count == 1


@pytest.mark.parametrize("where", SEVERAL, ids=named)
async def test_an_update_that_one_device_cannot_compute_changes_nothing(
    where: tuple[DeviceId, ...],
) -> None:
    """What may fail in an update is done beside, before anything is changed."""
    spec = mlp_spec(where, batch_norm=True)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.step(batch_of(spec, 0), sgd.updater)
        before = await snapshot(group)
        program: Any = group._memory.updates[sgd.updater].programs.of(len(where) - 1)[0]

        def fail(section: str) -> None:
            raise MemoryError("no memory")

        program.launch = fail
        with pytest.raises(MemoryError):
            await group.step(batch_of(spec, 1), sgd.updater)
        del program.launch
        assert same(before, await snapshot(group))
        assert sgd.count == 1
        await group.step(batch_of(spec, 1), sgd.updater)
        after = await snapshot(group)
    assert same(after, await plain_steps(spec, [0, 1]))


async def test_an_updater_without_parameters_does_nothing() -> None:
    spec = mlp_spec(TWO)
    async with open_group(spec) as group:
        before = await snapshot(group)
        await group.step(batch_of(spec), Updater("sgd", (), ("momentum",)))
        assert same(before, await snapshot(group))


async def test_fixed_gammas_enter_the_update_as_one() -> None:
    for rule in ("sgd", None):
        spec = mlp_spec(TWO, batch_norm=True)  # fix_gamma is MXNet's default
        async with open_group(spec) as group:
            sgd = Sgd(spec)
            updater = sgd.updater if rule else Updater(None, sgd.names, function=decay)
            await group.step(batch_of(spec), updater)
            parameters, _ = await group.read_parameters()
            gamma = parameters["bn_gamma"]
            assert np.unique(gamma).tolist() == [np.float32(1) * np.float32(0.999)]


def decay(index: int, weight: Any, gradient: Any, state: Any) -> None:
    weight *= np.float32(0.999)


# Host functions -----------------------------------------------------------------------


def momentum_sgd(index: int, weight: Any, gradient: Any, state: Any) -> None:
    state *= np.float32(0.9)
    state -= np.float32(0.1) * (gradient + np.float32(0.01) * weight)
    weight += state


@pytest.mark.parametrize("where", [ONE, *SEVERAL], ids=named)
async def test_a_function_updates_as_the_rule_does(where: tuple[DeviceId, ...]) -> None:
    results = []
    for rule in ("sgd", None):
        spec = mlp_spec(where)
        async with open_group(spec) as group:
            updater = Updater(
                rule,
                Sgd(spec).names,
                ("momentum",) if rule else (),
                hyper=lambda: np.tile([0.1, 0.01, 1.0, -1.0, 0.9], (4, 1)),
                function=momentum_sgd,
                create_state=lambda index, weight: np.zeros_like(weight),
            )
            for k in range(3):
                await group.step(batch_of(spec, k), updater)
            results.append(await snapshot(group))
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("where", [ONE, *SEVERAL], ids=named)
async def test_a_function_that_raises_has_changed_nothing(
    where: tuple[DeviceId, ...],
) -> None:
    spec = mlp_spec(where, batch_norm=True)
    broken = True

    def fail_at_the_third(index: int, weight: Any, gradient: Any, state: Any) -> None:
        momentum_sgd(index, weight, gradient, state)
        if broken and index == 2:
            raise ValueError("schedule ended")

    def new() -> Updater:
        return Updater(
            None,
            Sgd(spec).names,
            function=fail_at_the_third,
            create_state=lambda index, weight: np.zeros_like(weight),
        )

    async with open_group(spec) as group:
        updater = new()
        broken = False
        await group.step(batch_of(spec), updater)
        broken = True
        before = await snapshot(group)
        for _ in range(2):
            with pytest.raises(ValueError, match="schedule ended"):
                await group.step(batch_of(spec), updater)
            assert same(before, await snapshot(group))
        broken = False
        await group.step(batch_of(spec), updater)
        after = await snapshot(group)
    async with open_group(spec) as group:
        updater = new()
        await group.step(batch_of(spec), updater)
        await group.step(batch_of(spec), updater)
        assert same(after, await snapshot(group))


@pytest.mark.parametrize("failing", [{0}, {1}, {0, 1}], ids=str)
async def test_weights_that_cannot_be_written_leave_a_mixture(
    failing: set[int],
) -> None:
    """All devices come back, however many of them fail, and the next call says so."""
    spec = mlp_spec(APART)
    async with open_group(spec) as group:
        updater = Updater(None, Sgd(spec).names, function=decay)
        await group.prepare(updater)
        programs = [group._memory.storage[index] for index in failing]
        for program in programs:
            program.write = no_memory  # type: ignore[method-assign]
        with trio.fail_after(10):
            with pytest.raises(MemoryError):
                await group.step(batch_of(spec), updater)
            with pytest.raises(DeviceError, match="a mixture of two steps"):
                await group.step(batch_of(spec), updater)
        for program in programs:
            del program.write


def no_memory(*arguments: Any, **settings: Any) -> None:
    raise MemoryError("no memory")


# Optimizer state ----------------------------------------------------------------------


@pytest.mark.parametrize("where", SEVERAL, ids=named)
async def test_optimizer_state_can_be_taken_along(where: tuple[DeviceId, ...]) -> None:
    spec = mlp_spec(where)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.step(batch_of(spec, 0), sgd.updater)
        parameters, _ = await group.read_parameters()
        states = await group.read_updater_states(sgd.updater)
        await group.step(batch_of(spec, 1), sgd.updater)
        expected = await snapshot(group)
    async with open_group(spec) as group:
        other = Sgd(spec)
        other.count = 1
        await group.write_parameters(parameters, {})
        await group.write_updater_states(other.updater, states)
        await group.step(batch_of(spec, 1), other.updater)
        assert same(expected, await snapshot(group))


async def test_wrong_optimizer_state_is_refused() -> None:
    spec = mlp_spec(TWO)
    async with open_group(spec) as group:
        updater = Sgd(spec).updater
        with pytest.raises(KeyError, match="no state of the optimizer"):
            await group.write_updater_states(updater, {"velocity": {}})
        with pytest.raises(KeyError, match="fc9_bias"):
            await group.write_updater_states(
                updater, {"momentum": {"fc9_bias": np.zeros(3)}}
            )


async def test_a_forgotten_updater_begins_anew() -> None:
    spec = mlp_spec(TWO)
    async with open_group(spec) as group:
        updater = Sgd(spec).updater
        await group.step(batch_of(spec), updater)
        await group.forget(updater)
        await group.forget(updater)
        states = await group.read_updater_states(updater)
        assert not any(v.any() for v in states["momentum"].values())


# In flight ----------------------------------------------------------------------------


@pytest.mark.parametrize("where", [ONE, *SEVERAL, devices("cpu")], ids=named)
@pytest.mark.parametrize("in_flight", [1, 2, 3])
async def test_steps_in_flight_are_the_same_steps(
    where: tuple[DeviceId, ...], in_flight: int
) -> None:
    spec = mlp_spec(where, batch_norm=True, dropout=True, in_flight=in_flight)
    outputs: list[Any] = []
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        reused = batch_of(spec)
        under_way: list[Pending] = []
        for k in range(6):
            for name, value in batch_of(spec, k).items():
                reused[name][...] = value  # as an iterator may
            await group.acquire_slot()
            under_way.append(group.dispatch_step(reused, sgd.updater))
            await under_way[-1].copied()
            for array in reused.values():
                array.fill(np.nan)
            if len(under_way) == in_flight:
                outputs += await under_way.pop(0).outputs()
        for pending in under_way:
            outputs += await pending.outputs()
        piped = await snapshot(group)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        for k in range(6):
            await group.step(batch_of(spec, k), sgd.updater)
            [out] = await group.outputs()
            np.testing.assert_array_equal(out, outputs[k])
        assert same(piped, await snapshot(group))


async def test_large_inputs_are_copied_by_the_devices() -> None:
    """More than 1 MB is not copied at dispatch: `copied` waits for the devices."""
    spec = mlp_spec(TWO, batch=64, features=5000)
    async with open_group(spec) as group:
        sgd = Sgd(spec, lr=1e-4)
        await group.prepare(sgd.updater)
        batch = batch_of(spec)
        copied = []

        async def dispatch() -> Pending:
            await group.acquire_slot()
            pending = group.dispatch_step(batch, sgd.updater)
            await pending.copied()
            copied.append(True)
            return pending

        with held(group):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dispatch)
                await trio.testing.wait_all_tasks_blocked()
                assert not copied
                nursery.cancel_scope.cancel()  # withdraws it
        assert sgd.count == 0
        pending = await dispatch()
        batch["data"].fill(np.nan)
        await pending.wait()
        assert pending.compute_seconds > 0
        assert pending.reduce_seconds > 0
        values = await snapshot(group)
        assert all(np.isfinite(value).all() for value in values.values())


async def test_a_cancelled_copy_of_a_begun_step_is_waited_for() -> None:
    spec = mlp_spec(ONE, batch=64, features=5000, fragile=True)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        batch = batch_of(spec)
        actor = group._calls.crew.actors[0]
        begun, go = trio.Event(), threading.Event()
        token = trio.lowlevel.current_trio_token()

        def observe(event: str, name: str, command: Any) -> None:
            if event == "began":
                token.run_sync_soon(begun.set)
                go.wait(60)

        actor.thread.observe = observe
        returned = []

        async def call(task_status: Any) -> None:
            with trio.CancelScope() as scope:
                await group.acquire_slot()
                pending = group.dispatch_step(batch, sgd.updater)
                task_status.started((scope, pending))
                try:
                    await pending.copied()
                finally:
                    returned.append(True)

        async with trio.open_nursery() as nursery:
            scope, pending = await nursery.start(call)
            await begun.wait()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert not returned
            go.set()
        assert returned
        assert await pending.settle()
        assert sgd.count == 1


async def test_no_more_steps_than_slots_are_under_way() -> None:
    spec = mlp_spec(TWO, in_flight=2)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        with held(group):
            pending = []
            for _ in range(2):
                await group.acquire_slot()
                pending.append(group.dispatch_step(batch_of(spec), sgd.updater))
            with trio.move_on_after(0) as scope:
                await group.acquire_slot()
            assert scope.cancelled_caught
            assert not await pending.pop().settle()  # withdrawn: its slot is free
            await group.acquire_slot()
            group.release_slot()
        await pending.pop().wait()
        for _ in range(2):
            await group.acquire_slot()
        assert sgd.count == 1


async def test_a_withdrawn_step_leaves_no_gap_in_the_count() -> None:
    """Of three queued steps the middle one goes: the third is then the second."""
    spec = mlp_spec(TWO, in_flight=3, dropout=True)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        with held(group):
            pending = []
            for k in range(3):
                await group.acquire_slot()
                pending.append(group.dispatch_step(batch_of(spec, k), sgd.updater))
            assert not await pending[1].settle()
        for k in (0, 2):
            await pending[k].wait()
        with pytest.raises(RuntimeError, match="withdrawn"):
            await pending[1].wait()
        assert sgd.count == 2
        assert group.training_forwards == 2
        after = await snapshot(group)
    assert same(after, await plain_steps(spec, [0, 2]))


async def test_a_failed_step_in_flight_is_raised_where_it_is_awaited() -> None:
    spec = mlp_spec(TWO, fragile=True)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        await group.acquire_slot()
        with hooked(failing_on("reference(1)")):
            pending = group.dispatch_step(batch_of(spec), sgd.updater)
            for _ in range(2):
                with pytest.raises(ArithmeticError, match="injected"):
                    await pending.wait()
        assert not await pending.settle()
        assert sgd.count == 0


async def test_a_schedule_that_fails_when_counted_anew_fails_its_own_step() -> None:
    spec = mlp_spec(ONE)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        calls = 0

        def hyper() -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise ValueError("schedule ended")
            return sgd.hyper()

        updater = Updater(
            "sgd", sgd.names, ("momentum",), hyper=hyper, revert=sgd.revert
        )
        await group.prepare(updater)
        with held(group):
            pending = []
            for k in range(2):
                await group.acquire_slot()
                pending.append(group.dispatch_step(batch_of(spec, k), updater))
            await pending[0].settle()
        with pytest.raises(ValueError, match="schedule ended"):
            await pending[1].wait()


async def test_a_step_needs_a_prepared_updater() -> None:
    spec = mlp_spec(ONE)
    async with open_group(spec) as group:
        await group.acquire_slot()
        with pytest.raises(RuntimeError, match="prepare"):
            group.dispatch_step(batch_of(spec), Sgd(spec).updater)


async def test_outputs_of_a_step_that_was_waited_for_are_there_at_once() -> None:
    """Also for a task that was cancelled meanwhile: nothing is waited for."""
    spec = mlp_spec(TWO)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        await group.acquire_slot()
        pending = group.dispatch_step(batch_of(spec), sgd.updater)
        await pending.wait()
        with trio.CancelScope() as scope:
            scope.cancel()
            [output] = await pending.outputs()
            await pending.copied()
        assert not scope.cancelled_caught
        assert output.shape == group.output_shapes[0]


async def test_predictions_can_be_in_flight_too() -> None:
    spec = mlp_spec(TWO)
    async with open_group(spec) as group:
        batch = batch_of(spec)
        first = group.dispatch_predict(batch)
        for array in batch.values():
            array.fill(0)
        second = group.dispatch_predict(batch_of(spec, 1))
        outputs = [(await pending.outputs())[0] for pending in (first, second)]
        for k, out in enumerate(outputs):
            [expected] = await group.predict(batch_of(spec, k))
            np.testing.assert_array_equal(out, expected)


async def test_preparing_twice_at_once_gives_one_state() -> None:
    spec = mlp_spec(TWO)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        async with trio.open_nursery() as nursery:
            for k in range(3):
                nursery.start_soon(group.step, batch_of(spec, k), sgd.updater)
        assert len(group._memory.updates) == 1
        assert sgd.count == 3


async def test_a_runtime_that_ends_takes_queued_steps_along() -> None:
    spec = mlp_spec(TWO)
    async with open_runtime() as runtime:
        group = await ExecutorGroup.create(spec, runtime)
        sgd = Sgd(spec)
        await group.prepare(sgd.updater)
        await group.acquire_slot()
        group.dispatch_step(batch_of(spec), sgd.updater)


def test_input_specs_are_plain_values() -> None:
    assert InputSpec("data", (2, 3)) == InputSpec("data", (2, 3), "float32", 0)
    assert hash(InputSpec("data", (2, 3))) == hash(InputSpec("data", (2, 3)))
