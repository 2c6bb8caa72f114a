"""Every optimizer as modules run it: fused, on one device and on several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.optimizer import get_updater
from runtime.errors import OperatorError
from tests.asyncmod.module.nets import batch, mlp, values
from tests.asyncmod.optimizer.cases import CASES, label

BIASES = ["fc1_bias", "fc2_bias"]
WHERE = {
    "cpu": [mx.cpu(0)],
    "two of cpu": [mx.cpu(0), mx.cpu(1)],
    "two of reference": [mx.reference(0), mx.reference(1)],
    "two memories": [mx.reference(0), mx.Context("simulated", 1), mx.reference(1)],
}


def module_of(name: str, where: str) -> mx.Module:
    fixed = BIASES if name == "groupadagrad" else None
    return mx.Module(mlp(), context=WHERE[where], fixed_param_names=fixed)


async def prepare(
    module: mx.Module, name: str, settings: dict[str, Any], parameters: Any
) -> None:
    common = {} if name == "groupadagrad" else {"wd": 0.01}
    await module.bind([("data", (8, 5))], [("softmax_label", (8,))])
    await module.init_params(arg_params=parameters)
    schedule = mx.lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.05)
    params = {"lr_scheduler": schedule} | common | settings
    await module.init_optimizer(optimizer=name, optimizer_params=params)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("case", CASES, ids=label)
async def test_the_fused_update_is_that_of_plain_arrays(
    case: tuple[str, dict[str, Any]], where: str
) -> None:
    name, settings = case
    mx.random.seed(7)
    expected = values(mlp())
    async with module_of(name, where) as module:
        await prepare(module, name, settings, expected)
        optimizer = module.optimizer
        assert optimizer is not None
        before = optimizer.get_state()
        grads = []
        for step in range(4):
            await module.forward_backward(batch(seed=step))
            grads.append(await module.get_grads())
            await module.update()
        got, _ = await module.get_params()
        async with module_of(name, "cpu") as fresh:
            mx.random.seed(7)
            await prepare(fresh, name, settings, expected)
            plain = fresh.optimizer
            assert plain is not None
            plain.set_state(before)
    updater = get_updater(plain)
    indexes = {parameter: index for index, parameter in plain.idx2name.items()}
    for summed in grads:
        for parameter, grad in summed.items():
            updater(indexes[parameter], grad, expected[parameter])
    for parameter, value in expected.items():
        np.testing.assert_allclose(
            got[parameter], value, rtol=1e-5, atol=1e-6, err_msg=parameter
        )


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("case", CASES, ids=label)
async def test_training_continues_bit_for_bit_from_saved_states(
    case: tuple[str, dict[str, Any]], where: str, tmp_path: Path
) -> None:
    name, settings = case
    file = tmp_path / "saved.states"
    async with module_of(name, where) as first, module_of(name, where) as second:
        await prepare(first, name, settings, values(mlp()))
        for step in range(2):  # the next one has another learning rate
            await first.step(batch(seed=step))
        await first.save_optimizer_states(file)
        saved, _ = await first.get_params()
        await prepare(second, name, settings, saved)
        await second.load_optimizer_states(file)
        for step in range(2, 6):
            await first.step(batch(seed=step))
            await second.step(batch(seed=step))
        straight, _ = await first.get_params()
        resumed, _ = await second.get_params()
    for parameter, value in straight.items():
        np.testing.assert_array_equal(resumed[parameter], value)
        if parameter not in BIASES:
            assert (value != saved[parameter]).any()


async def test_a_parameter_that_the_rule_cannot_update_is_named() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await module.bind([("data", (8, 5))], [("softmax_label", (8,))])
        await module.init_params(arg_params=values(mlp()))
        with pytest.raises(OperatorError, match=r"fc1_bias.*fixed_param_names"):
            await module.init_optimizer(optimizer="groupadagrad")
