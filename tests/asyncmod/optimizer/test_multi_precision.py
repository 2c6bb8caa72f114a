"""float16 parameters: with float32 copies that are updated, and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.optimizer import get_updater
from tests.asyncmod.module.nets import batch, mlp, values
from tests.asyncmod.optimizer.cases import CASES, label

WHERE = {
    "cpu": [mx.cpu(0)],
    "two of cpu": [mx.cpu(0), mx.cpu(1)],
    "two memories": [mx.reference(0), mx.Context("simulated", 1)],
}
RULES = [case for case in CASES if case[0] != "groupadagrad"]


def half(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def half_batch(seed: int) -> mx.io.DataBatch:
    made = batch(seed=seed)
    return mx.io.DataBatch([made.data[0].astype(np.float16)], made.label)


async def prepare(
    module: mx.Module, parameters: Any, name: str, **settings: Any
) -> None:
    await module.bind(
        [mx.io.DataDesc("data", (8, 5), np.float16)],
        [mx.io.DataDesc("softmax_label", (8,), np.float32)],
    )
    await module.init_params(arg_params=parameters)
    settings = {"learning_rate": 0.05} | settings
    await module.init_optimizer(optimizer=name, optimizer_params=settings)


@pytest.mark.parametrize("multi_precision", [True, False])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("case", RULES, ids=label)
async def test_the_fused_update_is_that_of_plain_arrays(
    case: tuple[str, dict[str, Any]], where: str, multi_precision: bool
) -> None:
    name, settings = case
    settings = settings | {"multi_precision": multi_precision, "wd": 0.01}
    expected = half(values(mlp()))
    mx.random.seed(7)
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await prepare(module, expected, name, **settings)
        made = module.optimizer
        assert made is not None
        before = made.get_state()
        grads = []
        for step in range(4):
            await module.forward_backward(half_batch(step))
            grads.append(await module.get_grads())
            await module.update()
        got, _ = await module.get_params()
    plain = mx.optimizer.create(
        name,
        **{"learning_rate": 0.05} | settings,
        rescale_grad=1 / 8,
        param_idx2name=made.idx2name,
    )
    plain.set_state(before)
    updater = get_updater(plain)
    indexes = {parameter: index for index, parameter in made.idx2name.items()}
    for summed in grads:
        for parameter, grad in summed.items():
            updater(indexes[parameter], grad, expected[parameter])
    for parameter, value in expected.items():
        assert got[parameter].dtype == np.float16
        # Norms are summed in another order.
        error = float(np.finfo(np.float16).eps) if name in ("lars", "lamb") else 0
        np.testing.assert_allclose(
            got[parameter], value, rtol=error, atol=error, err_msg=parameter
        )


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", ["sgd", "adam", "lamb"])
async def test_small_steps_add_up_in_the_copies(
    name: str, where: str, tmp_path: Path
) -> None:
    """And they do so over saving and binding anew, which keep the copies."""
    settings = {"learning_rate": 1e-5, "multi_precision": True}
    start = half(values(mlp()))
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await prepare(module, start, name, **settings)
        for step in range(6):
            await module.step(half_batch(step))
        straight, _ = await module.get_params()
        states = module.core.need_optimizer("test")
        copies = (await states._read(module.core.need_executors("test"))).of_rule[
            "master"
        ]
    for parameter, copy in copies.items():
        assert copy.dtype == np.float32
        np.testing.assert_array_equal(copy.astype(np.float16), straight[parameter])
        assert (copy != straight[parameter]).any()
    file = tmp_path / "saved.states"
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await prepare(module, start, name, **settings)
        for step in range(3):
            await module.step(half_batch(step))
        await module.save_optimizer_states(file)
        parameters, _ = await module.get_params()
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await prepare(module, parameters, name, **settings)
        await module.load_optimizer_states(file)
        await module.step(half_batch(3))
        await module.bind(module.data_shapes, module.label_shapes, force_rebind=True)
        for step in range(4, 6):
            await module.step(half_batch(step))
        resumed, _ = await module.get_params()
    for parameter, value in straight.items():
        np.testing.assert_array_equal(resumed[parameter], value)


async def test_a_copy_follows_whoever_sets_its_parameter() -> None:
    """MXNet's would bring the old values back with the next update."""
    async with mx.Module(mlp(), context=mx.cpu(0)) as module:
        await prepare(module, half(values(mlp())), "sgd", multi_precision=True)
        await module.step(half_batch(0))
        other = half(values(mlp(), seed=9))
        await module.set_params(other, {})
        await module.step(half_batch(1))
        got, _ = await module.get_params()
        await module.set_params(other, {})
        await module.init_optimizer(
            optimizer_params={"learning_rate": 0.05, "multi_precision": True},
            force_init=True,
        )
        await module.step(half_batch(1))
        expected, _ = await module.get_params()
    for parameter, value in expected.items():
        np.testing.assert_array_equal(got[parameter], value)
