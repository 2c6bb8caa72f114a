"""The fused sum of gradients and update, on every device."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.devices.contract import Device
from runtime.devices.factory import create_device
from runtime.graph.plan import Layout, UpdateRow
from runtime.graph.update import HYPER_LIMIT, plan_update
from runtime.ops import update as rules
from runtime.ops.updates.descent import sgd
from runtime.ops.updates.rule import UpdateRule

SHAPES = {"w": (3, 5), "b": (7,), "gamma": (4,)}
COMMON = (0.1, 0.01, 0.5, 0.3)  # lr, wd, rescale, clip
HYPER = (*COMMON, 0.9)  # and momentum
HYPERS = {
    "sgd": HYPER,
    "nag": HYPER,
    "signum": (*HYPER, 0.1),
    "dcasgd": (*HYPER, 0.4),
    "adam": (*COMMON, 0.9, 0.99, 1e-3),
    "adamax": (*COMMON, 0.9, 0.99),
    "nadam": (*COMMON, 0.9, 0.99, 1e-3, 0.5, 0.6, 0.3, 0.01),
    "ftml": (*COMMON, 0.6, 0.99, 1e-3, 0.4, 0.01),
    "adagrad": (*COMMON, 1e-3),
    "groupadagrad": (*COMMON, 1e-3),
    "adadelta": (*COMMON, 0.9, 1e-3),
    "rmsprop": (*COMMON, 0.9, 1e-3, 1.0),
    "rmsprop_centered": (*COMMON, 0.9, 0.8, 1e-3, -1.0),
    "ftrl": (*COMMON, 0.05, 1.0),
    "lars": (*HYPER, 0.5, 0.1, 1.0),
    "lbsgd": (*HYPER, 2.0, 1.0, 1.0),
    "lamb": (*COMMON, 0.9, 0.99, 1e-3, 0.1, 0.01, 0.5, 1.0),
    "sgld": (*COMMON, 12345.0, 6.0, 7.0),
}


def values(seed: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return {n: random.normal(0, 1, s).astype(np.float32) for n, s in SHAPES.items()}


def names_of(rule: str) -> tuple[str, ...]:
    """The parameters that a rule can update."""
    axes = rules.get_rule(rule).axes
    return tuple(n for n, shape in SHAPES.items() if axes in (None, len(shape)))


def update(
    device: Device,
    parts: int,
    states: tuple[str, ...],
    fixed: tuple[str, ...] = (),
    rule: str = "sgd",
    dtype: str = "float32",
) -> dict[str, NDArray[np.float32]]:
    """Two updates with the sum of two gradients, done in `parts` parts."""
    layout = Layout.pack("parameter", [(n, s, dtype) for n, s in SHAPES.items()])
    names, hyper = names_of(rule), HYPERS[rule]
    shared = None
    programs = []
    for part in range(parts):
        plan = plan_update(
            rule,
            layout,
            names,
            states=states,
            hyper=len(hyper),
            devices=2,
            part=part,
            parts=parts,
            whole=not rules.get_rule(rule).elementwise,
            native=device.native,
            fixed_ones=fixed,
        )
        program = device.compile(plan, shared)
        own = ("hyper", "scaled", "beside", "wide")
        shared = {k: v for k, v in program.segments.items() if k not in own}
        program.write("hyper", "hyper", np.tile(np.array(hyper), (len(names), 1)))
        programs.append(program)
    first = programs[0]
    for segment, seed in (("parameter", 0), ("gradient.0", 1), ("gradient.1", 2)):
        for name in names:
            first.write(segment, name, values(seed)[name])
    for state in states:
        first.fill(f"state.{state}")
    for _ in range(2):
        for program in programs:
            program.launch("prepare")
            program.wait()
        for program in programs:
            program.launch("update")
            program.wait()
    return {name: first.read("parameter", name) for name in names}


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


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("rule", rules.RULES)
def test_every_rule(device: Device, rule: str, parts: int) -> None:
    """As its definition says in float64, and alike however devices share the work."""
    definition = rules.get_rule(rule)
    got = update(device, parts, definition.states, rule=rule)
    whole = update(device, 1, definition.states, rule=rule)
    for name in names_of(rule):
        weight = values(0)[name].astype(np.float64)
        states = tuple(np.zeros_like(weight) for _ in definition.states)
        gradient = values(1)[name].astype(np.float64) + values(2)[name]
        for _ in range(2):
            weight, states = definition.apply(weight, gradient, states, HYPERS[rule])
        np.testing.assert_allclose(got[name], weight, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(got[name], whole[name])
        assert (got[name] != values(0)[name]).any()


@pytest.mark.parametrize("rule", rules.RULES)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions(device: Device, rule: str, dtype: str) -> None:
    definition = rules.get_rule(rule)
    got = update(device, 2, definition.states, rule=rule, dtype=dtype)
    for name in names_of(rule):
        weight, one, two = (values(seed)[name].astype(dtype) for seed in range(3))
        states = tuple(np.zeros_like(weight) for _ in definition.states)
        with np.errstate(all="ignore"):
            for _ in range(2):
                weight, states = definition.apply(
                    weight, one + two, states, HYPERS[rule]
                )
        assert got[name].dtype == dtype
        np.testing.assert_array_equal(got[name], weight)


@pytest.mark.parametrize("rule", rules.RULES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_definition_gives_fresh_arrays(rule: str, dtype: str) -> None:
    """What it is given stays as it is, so that a failure later changes nothing."""
    definition = rules.get_rule(rule)
    hyper = np.array(HYPERS[rule])
    assert len(hyper) == len(definition.hyper) <= HYPER_LIMIT
    weight, gradient = values(0)["w"].astype(dtype), values(1)["w"].astype(dtype)
    states = [np.abs(values(2)["w"]).astype(dtype) for _ in definition.states]
    given = [weight, gradient, *states]
    before = [array.copy() for array in given]
    with np.errstate(all="ignore"):
        new, new_states = definition.apply(weight, gradient, states, hyper)
    for array, kept in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, kept)
    for fresh in (new, *new_states):
        assert (fresh.dtype, fresh.shape) == (weight.dtype, weight.shape)
        assert not any(np.shares_memory(fresh, array) for array in given)


def test_a_parameter_that_is_needed_whole_is_never_divided() -> None:
    layout = Layout.pack("parameter", [(n, s, "float32") for n, s in SHAPES.items()])
    seen: list[tuple[str, tuple[int, ...]]] = []
    for part in range(4):
        plan = plan_update(
            "lamb", layout, tuple(SHAPES), hyper=11, part=part, parts=4, whole=True
        )
        rows = [row for row in plan.sections["prepare"] if isinstance(row, UpdateRow)]
        assert len(rows) < len(SHAPES)
        seen += [(row.node, row.weight.shape) for row in rows]
    assert dict(seen) == SHAPES
    assert len(seen) == len(SHAPES)


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
            breaking.launch("prepare")
    finally:
        del rules.RULES["broken"]
    assert len(calls) == 2
    for name, value in values(0).items():
        np.testing.assert_array_equal(program.read("parameter", name), value)
