"""What `runtime.devices.contract` promises, held against every device."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.devices.contract import Device, Program
from runtime.devices.factory import create_device
from runtime.devices.process.device import ProcessDevice
from runtime.devices.reference import ReferenceDevice
from runtime.errors import ClosedError, DeviceError, GradientError, ShapeError
from tests.conformance.nets import NETS, mlp, resnet, results


def train(program: Program, slot: int = 0) -> dict[str, NDArray[np.float32]]:
    program.launch("forward", slot)
    program.launch("backward", slot)
    program.launch("commit", slot)
    return results(program, slot)


@pytest.mark.parametrize("name", NETS)
def test_training_agrees_with_the_reference(device: Device, name: str) -> None:
    net = NETS[name]()
    got, expected = (
        (net.load(program), train(program))[1]
        for program in (
            net.compile(device, True),
            net.compile(ReferenceDevice(), True),
        )
    )
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=2e-4, atol=2e-5, err_msg=key)


@pytest.mark.parametrize("name", NETS)
def test_inference_agrees_with_the_reference(device: Device, name: str) -> None:
    net = NETS[name]()
    values = []
    for one in (device, ReferenceDevice()):
        program = net.compile(one, False)
        net.load(program)
        program.launch("predict")
        values.append(results(program))
    for key, value in values[1].items():
        np.testing.assert_allclose(values[0][key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_nothing_is_written_between_tensors(device: Device, name: str) -> None:
    net = NETS[name]()
    plain = net.compile(device, True)
    guarded = net.compile(device, True, guards=128)
    assert sum(guarded.plan.segments.values()) > sum(plain.plan.segments.values())
    for program in (plain, guarded):
        net.load(program)
    expected, got = train(plain), train(guarded)
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


def test_a_guard_zone_sees_a_wild_write() -> None:
    program = mlp().compile(ReferenceDevice(), True, guards=128)
    mlp().load(program)
    program.segments["arena"].data[3] ^= 1  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match="byte 3 of segment `arena`"):
        program.launch("forward")


def test_same_step_same_bits(device: Device) -> None:
    net = resnet()
    runs = []
    for _ in range(2):
        program = net.compile(device, True)
        net.load(program)
        runs.append(train(program))
    for key, value in runs[0].items():
        np.testing.assert_array_equal(runs[1][key], value, err_msg=key)


def test_forward_changes_nothing_but_outputs(device: Device) -> None:
    net = resnet()
    program = net.compile(device, True)
    net.load(program)
    program.launch("forward")
    values = net.values()
    for segment in ("parameter", "auxiliary"):
        for name in program.plan.tensors[segment]:
            np.testing.assert_array_equal(program.read(segment, name), values[name])
    program.launch("backward")
    program.launch("commit")
    moved = program.read("auxiliary", "stem_norm_moving_mean")
    assert (moved != values["stem_norm_moving_mean"]).all()


def test_second_backward_gives_the_same_gradients(device: Device) -> None:
    net = resnet()
    program = net.compile(device, True)
    net.load(program)
    program.launch("forward")
    program.launch("backward")
    first = results(program)
    program.launch("backward")
    for key, value in results(program).items():
        if "gradient" in key:
            np.testing.assert_array_equal(value, first[key], err_msg=key)


@pytest.mark.parametrize("name", NETS)
def test_a_step_is_forward_and_backward(device: Device, name: str) -> None:
    net = NETS[name]()
    whole, parts = (net.compile(device, True) for _ in range(2))
    for program in (whole, parts):
        net.load(program)
    for _ in range(2):
        whole.launch("step")
        whole.launch("commit")
        got, expected = results(whole), train(parts)
        for key, value in expected.items():
            np.testing.assert_array_equal(got[key], value, err_msg=key)
        # The next step sees changed parameters.
        for program in (whole, parts):
            for key in program.plan.tensors["parameter"]:
                program.write("parameter", key, program.read("parameter", key) / 2)


def test_requests_add_and_null(device: Device) -> None:
    net = mlp()
    net.gradients = {"fc1_weight": "add", "fc2_bias": "null", "data": "add"}
    program = net.compile(device, True)
    net.load(program)
    for segment in ("gradient", "input_gradient"):
        program.fill(segment)
    once = train(program)
    twice = train(program)
    assert "gradient.fc2_bias" not in once
    for key in ("gradient.fc1_weight", "input_gradient.data"):
        np.testing.assert_allclose(twice[key], 2 * once[key], rtol=1e-6)
    key = "gradient.fc2_weight"
    np.testing.assert_array_equal(twice[key], once[key])
    program.fill("gradient", 3.0)
    assert (program.read("gradient", "fc1_weight") == 3).all()


def test_slots_do_not_disturb_each_other(device: Device) -> None:
    net = mlp()
    program = net.compile(device, True, slots=2)
    net.load(program, seed=0, slot=0)
    net.feed(program, seed=1, slot=1)
    program.launch("forward", 0)
    first = program.read("output", "softmax_output", 0)
    program.launch("forward", 1)
    second = program.read("output", "softmax_output", 1)
    np.testing.assert_array_equal(program.read("output", "softmax_output", 0), first)
    assert (first != second).any()


def test_changed_parameters_are_seen(device: Device) -> None:
    net = mlp()
    program = net.compile(device, False)
    net.load(program)
    program.launch("predict")
    before = program.read("output", "softmax_output")
    program.write("parameter", "fc1_weight", np.zeros((5, 7), np.float32))
    program.launch("predict")
    assert (program.read("output", "softmax_output") != before).any()


@pytest.mark.parametrize("how", ["commit", "write"])
def test_changed_auxiliary_states_are_seen(device: Device, how: str) -> None:
    net = resnet()
    training = net.compile(device, True)
    net.load(training)
    plan = net.compile(device, False).plan
    shared = {name: training.segments[name] for name in ("parameter", "auxiliary")}
    programs = [device.compile(plan, shared) for _ in range(2)]
    for program in programs:
        net.feed(program)
    programs[0].launch("predict")
    before = programs[0].read("output", "softmax_output")
    if how == "commit":
        training.launch("step")
        training.launch("commit")
    else:
        training.write("auxiliary", "stem_norm_moving_var", np.full(4, 0.1))
    outputs = []
    for program in programs:
        program.launch("predict")
        outputs.append(program.read("output", "softmax_output"))
    assert (outputs[0] != before).any()
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_segments_are_shared(device: Device) -> None:
    net = mlp()
    training = net.compile(device, True)
    net.load(training)
    inference = device.compile(
        net.compile(device, False).plan, {"parameter": training.segments["parameter"]}
    )
    net.feed(inference)
    inference.launch("predict")
    training.launch("forward")
    expected = training.read("output", "softmax_output")
    np.testing.assert_array_equal(inference.read("output", "softmax_output"), expected)
    training.write("parameter", "fc2_bias", np.full(3, 9, np.float32))
    assert (inference.read("parameter", "fc2_bias") == 9).all()


def test_arrays_are_the_callers_after_write_and_read(device: Device) -> None:
    net = mlp()
    program = net.compile(device, False)
    net.load(program)
    data = net.values()["data"].copy()
    program.write("input", "data", data)
    data[:] = np.nan
    program.launch("predict")
    output = program.read("output", "softmax_output")
    output[:] = np.nan
    assert np.isfinite(program.read("output", "softmax_output")).all()


def test_dtypes_are_cast(device: Device) -> None:
    net = mlp()
    program = net.compile(device, False)
    program.write("input", "data", np.arange(28, dtype=np.int64).reshape(4, 7))
    got = program.read("input", "data")
    assert got.dtype == np.float32
    assert got[3, 6] == 27


def test_errors_say_what_was_wrong(device: Device) -> None:
    net = mlp()
    program = net.compile(device, True)
    with pytest.raises(ShapeError, match=r"`data` has shape \(7, 4\), but \(4, 7\)"):
        program.write("input", "data", np.zeros((7, 4), np.float32))
    with pytest.raises(DeviceError, match="no tensor `date` in `input`"):
        program.read("input", "date")
    with pytest.raises(GradientError, match="needs a training forward"):
        program.launch("backward")


def test_close_frees_and_is_final(device: Device) -> None:
    program = mlp().compile(device, True)
    program.close()
    program.close()
    with pytest.raises(ClosedError):
        program.launch("forward")
    with pytest.raises(ClosedError):
        program.read("output", "softmax_output")


def test_foreign_memory_is_refused() -> None:
    here, there = create_device("simulated", 0), create_device("simulated", 1)
    one = mlp().compile(here, False)
    with pytest.raises(DeviceError, match="not memory of simulated"):
        there.compile(one.plan, {"parameter": one.segments["parameter"]})


def test_memory_of_this_process_is_no_shared_memory(
    processes: dict[str, ProcessDevice],
) -> None:
    one = mlp().compile(create_device("cpu"), False)
    with pytest.raises(DeviceError, match="`parameter` does not lie in shared memory"):
        processes["cpu"].compile(one.plan, {"parameter": one.segments["parameter"]})


def test_worker_processes_share_memory(processes: dict[str, ProcessDevice]) -> None:
    net = mlp()
    plan = net.compile(ReferenceDevice(), False).plan
    with closing(processes["reference"].compile(plan)) as one:
        shared = {"parameter": one.segments["parameter"]}
        with closing(processes["cpu"].compile(plan, shared)) as other:
            net.load(one)
            net.feed(other)
            for program in (one, other):
                program.launch("predict")
            np.testing.assert_array_equal(
                results(other)["output.softmax_output"],
                results(one)["output.softmax_output"],
            )


def test_null_device_plans_and_runs_nothing() -> None:
    program = mlp().compile(create_device("null"), True)
    mlp().load(program)
    assert not train(program)["output.softmax_output"].any()
    with pytest.raises(ShapeError):
        program.write("input", "data", np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("kind", "index", "worker", "message"),
    [
        ("tpu", 0, "thread", "unknown device kind 'tpu'"),
        ("cpu", -1, "thread", "index"),
        ("cpu", 0, "fiber", "worker"),
        ("gpu", 0, "thread", "not available"),
        ("simulated", 0, "process", "only cpu and reference devices run in processes"),
    ],
)
def test_devices_that_do_not_exist(
    kind: str, index: int, worker: str, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        create_device(kind, index, worker)
