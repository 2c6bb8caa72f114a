"""What a group computes does not depend on how many devices share the batch."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import trio

from runtime.actors import open_runtime
from runtime.context import DeviceId
from runtime.errors import (
    ClosedError,
    DeviceError,
    GradientError,
    ShapeError,
)
from runtime.executor.group import ExecutorGroup, GroupSpec, InputSpec, Updater
from runtime.graph.ir import Graph
from tests.runtime.executor.fragile import Direction, hooked
from tests.runtime.executor.nets import (
    Sgd,
    apply,
    batch_of,
    dense,
    devices,
    first_values,
    mlp_spec,
    open_group,
    same,
    snapshot,
    variable,
)

ONE = devices("reference")
TWO = devices("reference", "reference")
MANY = [
    TWO,
    devices("reference", "reference", "reference"),
    devices("simulated"),
    devices("simulated", "simulated"),
    devices("reference", "simulated", "reference"),
    devices("cpu", "cpu"),
]


def named(where: tuple[DeviceId, ...]) -> str:
    return "+".join(map(str, where))


@pytest.mark.parametrize("where", MANY, ids=named)
async def test_devices_together_train_as_one_does(where: tuple[DeviceId, ...]) -> None:
    results = []
    for each in (ONE, where):
        spec = mlp_spec(each)
        async with open_group(spec) as group:
            sgd = Sgd(spec)
            for k in range(4):
                await group.step(batch_of(spec, k), sgd.updater)
            outputs = await group.outputs()
            predicted = await group.predict(batch_of(spec, 9))
            states = await group.read_updater_states(sgd.updater)
            results.append(
                await snapshot(group)
                | {"out": outputs[0], "predicted": predicted[0]}
                | {f"momentum {n}": v for n, v in states["momentum"].items()}
            )
    one, together = results
    assert one.keys() == together.keys()
    for name, value in one.items():
        np.testing.assert_allclose(together[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("where", MANY, ids=named)
async def test_replicas_stay_identical(where: tuple[DeviceId, ...]) -> None:
    spec = mlp_spec(where)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        for k in range(3):
            await group.step(batch_of(spec, k), sgd.updater)
        copies = [
            {n: storage.read("parameter", n) for n in group.parameter_names}
            for storage in group._memory.storage
        ]
        assert all(same(copies[0], copy) for copy in copies)


@pytest.mark.parametrize("where", [ONE, *MANY], ids=named)
async def test_a_step_is_forward_backward_and_update(
    where: tuple[DeviceId, ...],
) -> None:
    results = []
    for whole in (True, False):
        spec = mlp_spec(where, batch_norm=True, dropout=True)
        async with open_group(spec) as group:
            sgd = Sgd(spec)
            for k in range(3):
                if whole:
                    await group.step(batch_of(spec, k), sgd.updater)
                else:
                    await group.forward(batch_of(spec, k), True)
                    await group.backward()
                    await group.update(sgd.updater)
            [out] = await group.outputs()
            results.append(await snapshot(group) | {"out": out})
    assert same(*results)


async def test_random_rows_are_those_of_the_whole_batch() -> None:
    outputs = []
    for where in (ONE, TWO):
        spec = mlp_spec(where, dropout=True)
        async with open_group(spec) as group:
            await group.forward(batch_of(spec), True)
            [out] = await group.outputs()
            await group.forward(batch_of(spec), True)
            [again] = await group.outputs()
            assert not np.array_equal(out, again)  # another step, other numbers
            group.training_forwards = 0
            await group.forward(batch_of(spec), True)
            [replayed] = await group.outputs()
            assert np.array_equal(out, replayed)
            outputs.append(out)
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-6)


async def test_each_device_counts_batch_norm_for_itself() -> None:
    spec = mlp_spec(TWO, batch_norm=True)
    async with open_group(spec) as group:
        await group.forward(batch_of(spec), True)
        before = await group.read_device_auxiliaries()
        assert not before[0]["bn_moving_mean"].any()  # a forward has no side effect
        await group.backward()
        first, second = await group.read_device_auxiliaries()
        assert not np.array_equal(first["bn_moving_mean"], second["bn_moving_mean"])
        _, mean = await group.read_parameters()
        expected = (first["bn_moving_mean"] + second["bn_moving_mean"]) / 2
        np.testing.assert_array_equal(mean["bn_moving_mean"], expected)


async def test_outputs_are_merged_in_order_and_owned() -> None:
    spec = mlp_spec(TWO, batch=5)
    async with open_group(spec) as group:
        await group.forward(batch_of(spec), False)
        [merged] = await group.outputs()
        [[first, second]] = await group.device_outputs()
        assert group.slices == (slice(0, 2), slice(2, 5))
        np.testing.assert_array_equal(np.concatenate([first, second]), merged)
        assert group.output_shapes == (merged.shape,) == ((5, 3),)
        merged[...] = -1
        [again] = await group.outputs()
        np.testing.assert_array_equal(again[:2], first)


async def test_gradients_are_summed_over_devices() -> None:
    spec, one = mlp_spec(TWO), mlp_spec(ONE)
    async with open_group(spec) as group, open_group(one) as single:
        for each in (group, single):
            await each.forward(batch_of(spec), True)
            await each.backward()
        summed = await group.gradients()
        parts = await group.device_gradients()
        expected = await single.gradients()
        assert summed.keys() == expected.keys() == set(group.parameter_names)
        for name, value in summed.items():
            np.testing.assert_array_equal(value, parts[name][0] + parts[name][1])
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("where", [ONE, *MANY], ids=named)
async def test_gradients_accumulate_until_they_are_zeroed(
    where: tuple[DeviceId, ...],
) -> None:
    spec = mlp_spec(where, request="add", gradients={"data": "add"})
    async with open_group(spec) as group:
        await group.forward(batch_of(spec), True)
        await group.backward()
        once = await group.gradients() | await group.input_gradients()
        await group.forward(batch_of(spec), True)
        await group.backward()
        twice = await group.gradients() | await group.input_gradients()
        assert set(once) == {*group.parameter_names, "data"}
        for name, value in once.items():
            np.testing.assert_allclose(twice[name], 2 * value, rtol=1e-6)
        await group.zero_gradients()
        zero = await group.gradients() | await group.input_gradients()
        assert not any(value.any() for value in zero.values())


async def test_input_gradients_merge_along_the_data_axis() -> None:
    spec = mlp_spec(TWO, batch=5, gradients={"data": "write"})
    one = mlp_spec(ONE, batch=5, gradients={"data": "write"})
    async with open_group(spec) as group, open_group(one) as single:
        for each in (group, single):
            await each.forward(batch_of(spec), True)
            await each.backward()
        merged = await group.input_gradients()
        parts = await group.device_input_gradients()
        expected = await single.input_gradients()
        assert merged.keys() == {"data"}
        np.testing.assert_array_equal(np.concatenate(parts["data"]), merged["data"])
        np.testing.assert_allclose(merged["data"], expected["data"], rtol=1e-5)


def time_major_spec(where: tuple[DeviceId, ...]) -> GroupSpec:
    """The square of (T, N, C) data, which is no loss."""
    data = variable("data")
    out = apply("elemwise_mul", "out", data, data)
    return GroupSpec(
        Graph((out,)),
        where,
        (1.0,) * len(where),
        (InputSpec("data", (2, 5, 3), batch_axis=1),),
        gradients={"data": "write"},
        output_axes=(1,),
    )


async def test_head_gradients_are_split_along_the_output_axis() -> None:
    spec = time_major_spec(TWO)
    async with open_group(spec) as group:
        data = np.random.RandomState(0).randn(2, 5, 3).astype(np.float32)
        head = np.random.RandomState(1).randn(2, 5, 3).astype(np.float32)
        await group.forward({"data": data}, True)
        [out] = await group.outputs()
        np.testing.assert_allclose(out, data * data, rtol=1e-6)
        await group.backward({"out_output": head})
        gradients = await group.input_gradients()
        np.testing.assert_allclose(gradients["data"], 2 * data * head, rtol=1e-6)


async def test_a_missing_or_wrong_head_gradient_is_refused() -> None:
    spec = time_major_spec(TWO)
    async with open_group(spec) as group:
        await group.forward({"data": np.ones((2, 5, 3), np.float32)}, True)
        with pytest.raises(GradientError, match="`out_output` is no loss"):
            await group.backward()
        with pytest.raises(ShapeError, match="`out_output`"):
            await group.backward({"out_output": np.ones((2, 4, 3))})


async def test_a_step_needs_losses() -> None:
    """Nobody could give it the gradient of an output that is none."""
    spec = time_major_spec(TWO)
    inputs = {"data": np.ones((2, 5, 3), np.float32)}
    async with open_group(spec) as group:
        updater = Updater("sgd", (), ("momentum",))
        await group.prepare(updater)
        with pytest.raises(GradientError, match="`out_output` is no loss"):
            await group.step(inputs, updater)
        for _ in range(spec.in_flight + 1):  # the place of each is given back
            await group.acquire_slot()
            with pytest.raises(GradientError, match="`out_output` is no loss"):
                group.dispatch_step(inputs, updater)


@pytest.mark.parametrize("where", [TWO, devices("simulated", "simulated")], ids=named)
async def test_a_device_without_rows_idles(where: tuple[DeviceId, ...]) -> None:
    results = []
    for each in (ONE, where):
        spec = mlp_spec(each, batch=1)
        async with open_group(spec) as group:
            sgd = Sgd(spec)
            for k in range(3):
                await group.step(batch_of(spec, k), sgd.updater)
            [out] = await group.outputs()
            [predicted] = await group.predict(batch_of(spec, 7))
            parameters, _ = await group.read_parameters()
            results.append(parameters | {"out": out, "predicted": predicted})
            assert len(await group.device_outputs()) == 1
    assert same(*results)


async def test_a_device_that_becomes_idle_adds_nothing_to_the_sum() -> None:
    """After a whole batch comes one of a single row; the idle gradients are stale."""
    results = []
    for where in (ONE, TWO):
        big = mlp_spec(where, batch=4)
        small = mlp_spec(where, batch=1)
        async with (
            open_runtime(),
            open_group(big) as group,
            open_group(small, shared=group) as reshaped,
        ):
            sgd = Sgd(big)
            await group.step(batch_of(big), sgd.updater)
            await reshaped.step(batch_of(small), sgd.updater)
            await group.step(batch_of(big, 1), sgd.updater)
            await reshaped.forward(batch_of(small, 2), True)
            await reshaped.backward()
            gradients = await reshaped.gradients()
            parameters, _ = await reshaped.read_parameters()
            results.append(parameters | {f"g {n}": g for n, g in gradients.items()})
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-4, atol=1e-6)


async def test_sharing_groups_have_one_set_of_parameters() -> None:
    async with open_runtime():
        spec, longer = mlp_spec(TWO), mlp_spec(TWO, batch=12)
        sgd = Sgd(spec)
        async with open_group(spec) as group:
            other = await ExecutorGroup.create(longer, group._calls.runtime, group)
            await group.step(batch_of(spec), sgd.updater)
            momentum = await other.read_updater_states(sgd.updater)
            assert any(v.any() for v in momentum["momentum"].values())
            assert same(await snapshot(group), await snapshot(other))
            await other.step(batch_of(longer), sgd.updater)
            assert same(await snapshot(group), await snapshot(other))
        # The first one is closed, the memory stays.
        await other.step(batch_of(longer), sgd.updater)
        await other.aclose()
        assert sgd.count == 3


async def test_sharing_needs_the_same_devices_and_parameters() -> None:
    async with open_runtime() as runtime, open_group(mlp_spec(TWO)) as group:
        with pytest.raises(ValueError, match="devices"):
            await ExecutorGroup.create(mlp_spec(ONE), runtime, group)
        with pytest.raises(ShapeError, match="fc1_weight"):
            await ExecutorGroup.create(mlp_spec(TWO, features=5), runtime, group)
        await group.predict(batch_of(group.spec))  # still in order


async def test_predict_does_not_disturb_a_forward_and_its_backward() -> None:
    for is_train in (True, False):
        spec = mlp_spec(TWO)
        async with open_group(spec) as group:
            await group.forward(batch_of(spec, 0), is_train)
            [before] = await group.outputs()
            [predicted] = await group.predict(batch_of(spec, 1))
            [after] = await group.outputs()
            np.testing.assert_array_equal(before, after)
            assert not np.array_equal(before, predicted)
            if is_train:
                await group.backward()
                gradients = await group.gradients()
                await group.forward(batch_of(spec, 0), True)
                await group.backward()
                assert same(gradients, await group.gradients())


async def test_outputs_need_a_forward_and_backward_a_training_forward() -> None:
    spec = mlp_spec(TWO)
    async with open_group(spec) as group:
        with pytest.raises(DeviceError, match="no outputs"):
            await group.outputs()
        with pytest.raises(GradientError, match="training forward"):
            await group.backward()
        await group.forward(batch_of(spec), True)
        await group.forward(batch_of(spec), False)
        with pytest.raises(GradientError, match="training forward"):
            await group.backward()


async def test_inference_groups_have_no_gradients() -> None:
    spec = mlp_spec(TWO, for_training=False)
    async with open_group(spec) as group:
        await group.forward(batch_of(spec), False)
        for call in (
            group.forward(batch_of(spec), True),
            group.backward(),
            group.step(batch_of(spec), Sgd(spec).updater),
        ):
            with pytest.raises(GradientError, match="bound for training"):
                await call


async def test_wrong_inputs_are_refused_before_anything_runs() -> None:
    spec = mlp_spec(TWO)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        before = await snapshot(group)
        wrong = batch_of(mlp_spec(TWO, batch=10))
        await group.prepare(sgd.updater)
        for inputs, error in ((wrong, ShapeError), ({"date": wrong["data"]}, KeyError)):
            with pytest.raises(error, match="data"):
                await group.forward(inputs, True)
            with pytest.raises(error, match="data"):
                await group.step(inputs, sgd.updater)
            with pytest.raises(error, match="data"):
                await group.predict(inputs)
            await group.acquire_slot()
            with pytest.raises(error, match="data"):
                group.dispatch_step(inputs, sgd.updater)
        assert sgd.count == 0
        assert same(before, await snapshot(group))


async def test_contradictions_in_a_specification_are_refused() -> None:
    twice = (*ONE, *ONE)
    cases = [
        (mlp_spec(twice), "must all be different"),
        (mlp_spec(TWO, workload=(1.0,)), "one share for each"),
        (mlp_spec(TWO, output_axes=(0, 0)), "output_axes"),
        (mlp_spec(TWO, workload=(1.0, -1.0)), "positive"),
    ]
    async with open_runtime() as runtime:
        for spec, message in cases:
            with pytest.raises(ValueError, match=message):
                await ExecutorGroup.create(spec, runtime)


async def test_batch_sizes_must_agree() -> None:
    good = mlp_spec(ONE)
    bad = GroupSpec(
        good.graph, ONE, (1.0,), good.data, (InputSpec("softmax_label", (3,)),)
    )
    async with open_runtime() as runtime:
        with pytest.raises(ShapeError, match="same batch size"):
            await ExecutorGroup.create(bad, runtime)


@pytest.mark.parametrize(
    "device",
    [
        DeviceId("gpu"),
        DeviceId("abacus"),
        DeviceId("cpu", -1),
        DeviceId("cpu", worker="gnome"),
        DeviceId("cpu", threads=2),
    ],
)
async def test_a_device_that_is_not_there_is_refused(device: DeviceId) -> None:
    async with open_runtime() as runtime:
        with pytest.raises(DeviceError, match=device.kind):
            await ExecutorGroup.create(mlp_spec((device,)), runtime)


async def test_parameters_are_written_everywhere_or_nowhere() -> None:
    spec = mlp_spec(devices("reference", "simulated"), batch_norm=True)
    async with open_group(spec) as group:
        before = await snapshot(group)
        values, auxiliaries = first_values(group, seed=5)
        wrong = values | {"fc2_bias": np.zeros(7)}
        with pytest.raises(ShapeError, match="fc2_bias"):
            await group.write_parameters(wrong, auxiliaries)
        with pytest.raises(KeyError, match="fc3_bias"):
            await group.write_parameters(values | {"fc3_bias": np.zeros(7)}, {})
        with pytest.raises(TypeError, match="not numbers"):
            await group.write_parameters({"fc2_bias": np.array(["a"] * 3)}, {})
        assert same(before, await snapshot(group))
        await group.write_parameters(values, auxiliaries)
        parameters, _ = await group.read_parameters()
        assert same(values, parameters)


async def test_parameters_are_not_written_while_a_device_reads_them() -> None:
    """Device 1 is in the middle of a forward while device 0 has nothing to do."""
    spec = mlp_spec(TWO, fragile=True)
    async with open_group(spec) as group:
        [expected] = await group.predict(batch_of(spec))
        begun, wrote = trio.Event(), threading.Event()
        token = trio.lowlevel.current_trio_token()
        storage: Any = group._memory.storage[0]
        write = storage.write

        def note(*arguments: Any) -> None:
            write(*arguments)
            wrote.set()

        def wait(name: str, direction: Direction) -> None:
            if name == "reference(1)":
                token.run_sync_soon(begun.set)
                assert not wrote.wait(0.2)

        storage.write = note
        with hooked(wait):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(group.forward, batch_of(spec), False)
                await begun.wait()
                await group.write_parameters(*first_values(group, seed=5))
        [out] = await group.outputs()
        np.testing.assert_array_equal(out, expected)


async def test_no_device_reads_parameters_that_are_half_written() -> None:
    """Device 1 could begin its next forward while device 0 still writes."""
    spec = mlp_spec(TWO, fragile=True)
    async with open_group(spec) as group:
        reading = threading.Event()
        storage: Any = group._memory.storage[0]
        write = storage.write

        def slow(segment: str, name: str, value: Any) -> None:
            assert not reading.wait(0.05)
            write(segment, name, value)

        def note(name: str, direction: Direction) -> None:
            if name == "reference(1)":
                reading.set()

        values, _ = first_values(group, seed=5)
        storage.write = slow
        with hooked(note):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(group.write_parameters, values, {})
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(group.predict, batch_of(spec))
        assert reading.is_set()
        parameters, _ = await group.read_parameters()
        assert same(parameters, values)


def state_spec(where: tuple[DeviceId, ...]) -> GroupSpec:
    """A cell that adds its input to its state."""
    total = apply("elemwise_add", "total", variable("data"), variable("state"))
    return GroupSpec(
        Graph((total,)),
        where,
        (1.0,) * len(where),
        (InputSpec("data", (5, 2)),),
        states=(InputSpec("state", (5, 2)),),
        for_training=False,
    )


async def test_states_are_kept_between_forwards() -> None:
    async with open_group(state_spec(TWO)) as group:
        data = {"data": np.ones((5, 2), np.float32)}
        await group.set_states(value=3)
        await group.forward(data, False)
        [out] = await group.outputs()
        assert (out == 4).all()
        [parts] = await group.device_outputs()
        await group.set_states({"state": parts})
        [out] = await group.predict(data)
        assert (out == 5).all()
        states = await group.get_states()
        assert [part.shape for part in states["state"]] == [(2, 2), (3, 2)]
        assert all((part == 4).all() for part in states["state"])
        states["state"][0][...] = 9  # a copy
        [out] = await group.predict(data)
        assert (out == 5).all()


async def test_wrong_states_are_refused() -> None:
    async with open_group(state_spec(TWO)) as group:
        part = np.zeros((2, 2))
        with pytest.raises(ValueError, match="either"):
            await group.set_states()
        with pytest.raises(ValueError, match="2 devices with rows"):
            await group.set_states({"state": [part]})
        with pytest.raises(ShapeError, match="state"):
            await group.set_states({"state": [part, part]})


async def test_a_closed_group_refuses() -> None:
    spec = mlp_spec(TWO)
    async with open_group(spec) as group:
        await group.aclose()
        await group.aclose()
        for call in (
            group.forward(batch_of(spec), True),
            group.predict(batch_of(spec)),
            group.read_parameters(),
            group.step(batch_of(spec), Sgd(spec).updater),
        ):
            with pytest.raises(ClosedError):
                await call


async def test_a_group_outlives_its_runtime_only_to_refuse() -> None:
    spec = mlp_spec(TWO)
    async with open_runtime() as runtime:
        group = await ExecutorGroup.create(spec, runtime)
    with pytest.raises(ClosedError):
        await group.predict(batch_of(spec))
    await group.aclose()


async def test_nothing_runs_on_the_trio_thread() -> None:
    """Results of a device that is no native one are made on its own thread."""
    seen = set()

    def note(name: str, direction: Direction) -> None:
        seen.add(name)

    spec = mlp_spec(ONE, fragile=True)
    with hooked(note):
        async with open_group(spec) as group:
            await group.step(batch_of(spec), Sgd(spec).updater)
            await group.predict(batch_of(spec))
    assert seen == {"reference(0)"}
    assert threading.current_thread().name not in seen


async def test_merged_outputs_without_batch_axis() -> None:
    """A summed loss comes once per device; axis -1 takes the first one's."""
    net = dense("fc", variable("data"), 2)
    total = apply("MakeLoss", "loss", apply("sum", "total", net))
    spec = GroupSpec(Graph((total,)), TWO, (1.0, 1.0), (InputSpec("data", (4, 2)),))
    data = {"data": np.arange(8, dtype=np.float32).reshape(4, 2)}
    async with open_group(spec) as group:
        [both] = await group.predict(data)
        assert both.shape == (2,)
        assert both[0] != both[1]
    first_only = GroupSpec(
        Graph((total,)),
        TWO,
        (1.0, 1.0),
        (InputSpec("data", (4, 2)),),
        output_axes=(-1,),
    )
    async with open_group(first_only) as group:
        [first] = await group.predict(data)
        np.testing.assert_array_equal(first, both[:1])
