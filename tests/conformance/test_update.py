"""The fused sum of gradients and update, on every device."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.devices.contract import Device
from runtime.devices.factory import create_device
from runtime.graph.plan import Layout
from runtime.graph.update import plan_update
from runtime.ops import update as rules
from runtime.ops.updates.descent import sgd
from runtime.ops.updates.rule import UpdateRule

SHAPES = {"w": (3, 5), "b": (7,), "gamma": (4,)}
HYPER = (0.1, 0.01, 0.5, 0.3, 0.9)  # lr, wd, rescale, clip, momentum


@pytest.fixture(params=["reference", "cpu", "simulated"])
def device(request: pytest.FixtureRequest) -> Device:
    return create_device(request.param)


def values(seed: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return {n: random.normal(0, 1, s).astype(np.float32) for n, s in SHAPES.items()}


def update(
    device: Device, parts: int, states: tuple[str, ...], fixed: tuple[str, ...] = ()
) -> dict[str, NDArray[np.float32]]:
    """Two updates with the sum of two gradients, done in `parts` parts."""
    layout = Layout.pack("parameter", [(n, s, "float32") for n, s in SHAPES.items()])
    shared = None
    programs = []
    for part in range(parts):
        plan = plan_update(
            "sgd",
            layout,
            tuple(SHAPES),
            states=states,
            hyper=5,
            devices=2,
            part=part,
            parts=parts,
            native=device.native is not None,
            fixed_ones=fixed,
        )
        program = device.compile(plan, shared)
        shared = {k: v for k, v in program.segments.items() if k != "hyper"}
        program.write("hyper", "hyper", np.tile(np.array(HYPER), (3, 1)))
        programs.append(program)
    first = programs[0]
    for segment, seed in (("parameter", 0), ("gradient.0", 1), ("gradient.1", 2)):
        for name, value in values(seed).items():
            first.write(segment, name, value)
    for state in states:
        first.fill(f"state.{state}")
    for _ in range(2):
        for program in programs:
            program.launch("update")
            program.wait()
    return {name: first.read("parameter", name) for name in SHAPES}


def expected(
    momentum: bool, fixed: tuple[str, ...] = ()
) -> dict[str, NDArray[np.float64]]:
    """MXNet's formulas, spelled out in float64."""
    lr, wd, rescale, clip, mu = HYPER
    result = {}
    for name, start in values(0).items():
        w = start.astype(np.float64)
        m = np.zeros_like(w)
        g = np.clip(rescale * (values(1)[name] + values(2)[name]), -clip, clip)
        for _ in range(2):
            if name in fixed:
                w = np.ones_like(w)
            if momentum:
                m = mu * m - lr * (g + wd * w)
                w = w + m
            else:
                w = (1 - lr * wd) * w - lr * g
        result[name] = w
    return result


@pytest.mark.parametrize("states", [(), ("momentum",)])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_sgd_on_devices(device: Device, states: tuple[str, ...], parts: int) -> None:
    got = update(device, parts, states)
    whole = update(device, 1, states)
    for name, value in expected(bool(states)).items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(got[name], whole[name])


@pytest.mark.parametrize("parts", [1, 2])
def test_a_fixed_gamma_enters_as_one(device: Device, parts: int) -> None:
    got = update(device, parts, (), fixed=("gamma",))
    for name, value in expected(False, ("gamma",)).items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-6)


def test_an_update_takes_effect_whole_or_not_at_all() -> None:
    """A definition that fails at the second weight leaves the first untouched."""
    device = create_device("reference")
    layout = Layout.pack("parameter", [(n, s, "float32") for n, s in SHAPES.items()])
    plan = plan_update("sgd", layout, tuple(SHAPES), hyper=5)
    program = device.compile(plan)
    for name, value in values(0).items():
        program.write("parameter", name, value)
        program.write("gradient.0", name, value)
    program.write("hyper", "hyper", np.tile(np.array(HYPER), (3, 1)))

    calls = []

    def failing(weight, gradient, states, hyper):  # type: ignore[no-untyped-def]
        calls.append(weight)
        if len(calls) == 2:
            raise MemoryError
        return sgd(weight, gradient, states, hyper)

    broken = UpdateRule("broken", rules.RULES["sgd"].hyper, (), failing)
    rules.RULES["broken"] = broken
    try:
        plan = plan_update("broken", layout, tuple(SHAPES), hyper=5)
        breaking = device.compile(plan, program.segments)
        with pytest.raises(MemoryError):
            breaking.launch("update")
    finally:
        del rules.RULES["broken"]
    assert len(calls) == 2
    for name, value in values(0).items():
        np.testing.assert_array_equal(program.read("parameter", name), value)
