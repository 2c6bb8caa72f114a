"""Trainings that MXNet began go on here from its own `.states` files."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.optimizer import OptimizerStatesError, get_updater
from tests.asyncmod.interop.test_pickled_data import Payload
from tests.golden.arrays import HERE, arrays

STATES = HERE / "states"
CASES: dict[str, Any] = json.loads((STATES / "cases.json").read_text())
PARAMETERS = ("fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")


def net() -> mx.symbol.Symbol:
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc1")
    x = mx.sym.Activation(x, act_type="relu", name="r")
    x = mx.sym.FullyConnected(x, num_hidden=2, name="fc2")
    return mx.sym.SoftmaxOutput(x, name="softmax")


def recorded(case: str, moment: str) -> dict[str, Any]:
    found = arrays("states/arrays.npz")
    return {name: found[f"{case}.{moment}.{name}"] for name in PARAMETERS}


def module_of(case: dict[str, Any], devices: int) -> mx.Module:
    contexts = [mx.cpu(i) for i in range(devices)]
    fixed = case["fixed"] or None
    return mx.Module(net(), context=contexts, fixed_param_names=fixed)


async def prepare(
    module: mx.Module, case: dict[str, Any], parameters: dict[str, Any]
) -> None:
    await module.bind([("data", (4, 3))], [("softmax_label", (4,))])
    await module.init_params(arg_params=parameters)
    await module.init_optimizer(
        optimizer=case["optimizer"], optimizer_params=case["settings"]
    )


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("name", CASES)
async def test_a_training_goes_on_as_in_mxnet(name: str, devices: int) -> None:
    """However many devices either has."""
    case, batches = CASES[name], arrays("states/arrays.npz")
    async with module_of(case, devices) as module:
        await prepare(module, case, recorded(name, "middle"))
        await module.load_optimizer_states(STATES / f"{name}.states")
        for i in (3, 4):
            data, label = batches[f"data.{i}"], batches[f"label.{i}"]
            await module.step(mx.io.DataBatch([data], [label]))
        got, _ = await module.get_params()
    for parameter, value in recorded(name, "after").items():
        np.testing.assert_allclose(
            got[parameter], value, rtol=1e-5, atol=1e-6, err_msg=parameter
        )


@pytest.mark.parametrize("name", ["half_sgd", "half_adam"])
async def test_copies_of_float16_parameters_come_along(
    name: str, tmp_path: Path
) -> None:
    found = arrays("states/arrays.npz")
    weights = {n: found[f"{name}.weight.{n}"] for n in PARAMETERS}
    momentum = {"momentum": 0.9} if name == "half_sgd" else {}
    case = {
        "optimizer": name.removeprefix("half_"),
        "settings": {"multi_precision": True, **momentum},
        "fixed": None,
    }
    async with module_of(case, 1) as module:
        half = mx.io.DataDesc("data", (4, 3), np.float16)
        await module.bind([half], [("softmax_label", (4,))])
        await module.init_params(arg_params=weights)
        await module.init_optimizer(
            optimizer=case["optimizer"], optimizer_params=case["settings"]
        )
        await module.load_optimizer_states(STATES / f"{name}.states")
        optimization = module.core.need_optimizer("test")
        content = await optimization._read(module.core.need_executors("test"))
    states = content.of_rule
    # MXNet's Adam has the copy before the states, SGD behind them.
    order = ["momentum", "master"] if momentum else ["master", "mean", "variance"]
    for parameter in PARAMETERS:
        for i, state in enumerate(order):
            expected = found[f"{name}.state.{parameter}.{i}"]
            np.testing.assert_array_equal(states[state][parameter], expected)
        assert (states["master"][parameter] != weights[parameter]).any()


async def test_module_load_reads_them(tmp_path: Path) -> None:
    async with module_of(CASES["adam"], 1) as module:
        await prepare(module, CASES["adam"], recorded("adam", "middle"))
        await module.save_checkpoint(str(tmp_path / "net"), 3)
    states = tmp_path / "net-0003.states"
    states.write_bytes((STATES / "adam.states").read_bytes())
    loaded = await mx.Module.load(
        str(tmp_path / "net"), 3, load_optimizer_states=True, context=mx.cpu()
    )
    batches = arrays("states/arrays.npz")
    async with loaded as module:
        await module.bind([("data", (4, 3))], [("softmax_label", (4,))])
        await module.init_optimizer(
            optimizer="adam", optimizer_params=CASES["adam"]["settings"]
        )
        for i in (3, 4):
            data, label = batches[f"data.{i}"], batches[f"label.{i}"]
            await module.step(mx.io.DataBatch([data], [label]))
        got, _ = await module.get_params()
    for parameter, value in recorded("adam", "after").items():
        np.testing.assert_allclose(got[parameter], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "name", "reason"),
    [
        ("adam", "sgd", "has 2 arrays, the optimizer keeps 1"),
        ("sgd", "adam", "has 1 arrays, the optimizer keeps 2"),
        ("sgd_plain", "sgd", "has 0 arrays, the optimizer keeps 1"),
        ("with_optimizer", "adam", r"shape is \(2,\), and the parameter's \(3, 3\)"),
    ],
)
async def test_what_does_not_fit_changes_nothing(
    file: str, name: str, reason: str, tmp_path: Path
) -> None:
    async with module_of(CASES[name], 1) as module:
        await prepare(module, CASES[name], recorded(name, "middle"))
        await module.load_optimizer_states(STATES / f"{name}.states")
        before, after = tmp_path / "before", tmp_path / "after"
        await module.save_optimizer_states(before)
        with pytest.raises(OptimizerStatesError, match=reason) as caught:
            await module.load_optimizer_states(STATES / f"{file}.states")
        assert "fc1_weight" in str(caught.value)
        await module.save_optimizer_states(after)
    assert before.read_bytes() == after.read_bytes()


async def test_a_parameter_without_a_state(tmp_path: Path) -> None:
    file = tmp_path / "a.states"
    file.write_bytes(pickle.dumps({0: None, 1: None}))
    async with module_of(CASES["sgd_plain"], 1) as module:
        await prepare(module, CASES["sgd_plain"], recorded("sgd_plain", "middle"))
        with pytest.raises(OptimizerStatesError, match="`fc2_weight`: it has no state"):
            await module.load_optimizer_states(file)


async def test_a_payload_is_not_run(tmp_path: Path) -> None:
    trace, file = tmp_path / "was here", tmp_path / "a.states"
    file.write_bytes(pickle.dumps({0: Payload(os.system, f"touch '{trace}'")}))
    async with module_of(CASES["sgd"], 1) as module:
        await prepare(module, CASES["sgd"], recorded("sgd", "middle"))
        with pytest.raises(OptimizerStatesError, match=r"`posix\.system`"):
            await module.load_optimizer_states(file)
    assert not trace.exists()


async def test_those_without_names_tell_what_reads_them() -> None:
    """A store and an updater know no order of parameters."""
    reader = "mx.interop.mxnet.load_optimizer_states"
    file = STATES / "adam.states"
    with pytest.raises(OptimizerStatesError, match=reader):
        get_updater(mx.optimizer.Adam()).set_states(file.read_bytes())
    async with mx.open_runtime():
        store = mx.kvstore.create("local")
        store.set_optimizer(mx.optimizer.Adam())
        with pytest.raises(OptimizerStatesError, match=reader):
            await store.load_optimizer_states(file)


async def test_an_optimizer_in_python_tells_what_reads_them() -> None:
    case = {"optimizer": "test", "settings": {}, "fixed": None}
    async with module_of(case, 1) as module:
        await prepare(module, case, recorded("sgd", "middle"))
        with pytest.raises(OptimizerStatesError, match="written in Python"):
            await module.load_optimizer_states(STATES / "sgd.states")
