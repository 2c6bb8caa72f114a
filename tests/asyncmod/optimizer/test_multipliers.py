"""Multipliers of learning rate and weight decay, from symbols and set by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import structlog

import asyncmod as mx
from tests.asyncmod.module.nets import batch, mlp, values

WHERE = {"cpu": [mx.cpu(0)], "two of reference": [mx.reference(0), mx.reference(1)]}


async def test_multipliers_of_a_symbol() -> None:
    """MXNet's test_lr_wd_mult: an operator's are those of the variables it makes."""
    bias = mx.sym.Variable("fc1_bias", lr_mult=1.0)
    net = mx.sym.FullyConnected(
        mx.sym.Variable("data"), bias=bias, name="fc1", num_hidden=10, lr_mult=0
    )
    net = mx.sym.FullyConnected(net, name="fc2", num_hidden=10, wd_mult=0.5)
    data = np.random.default_rng(0).uniform(-1, 1, (5, 10)).astype(np.float32)
    async with mx.Module(net, label_names=None, context=mx.cpu(0)) as module:
        await module.bind([("data", (5, 10))])
        await module.init_params(mx.init.Uniform(1.0))
        await module.init_optimizer(optimizer_params={"learning_rate": 1.0})
        before, _ = await module.get_params()
        await module.forward(mx.io.DataBatch([data], None))
        await module.backward(await module.get_outputs())
        await module.update()
        after, _ = await module.get_params()
        optimizer = module.optimizer
    assert optimizer is not None
    assert optimizer.lr_mult == {"fc1_bias": 1.0, "fc1_weight": 0.0}
    assert optimizer.wd_mult == {"fc2_bias": 0.5, "fc2_weight": 0.5, "fc1_bias": 0.0}
    np.testing.assert_array_equal(after["fc1_weight"], before["fc1_weight"])
    for name in ("fc1_bias", "fc2_weight"):
        assert abs(after[name] - before[name]).max() > 0.1


async def one_step(where: str, change: Any = None, **settings: Any) -> Any:
    """How far each parameter moves in one step of SGD, and its gradient."""
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await module.bind([("data", (8, 5))], [("softmax_label", (8,))])
        start = values(mlp())
        await module.init_params(arg_params=start)
        settings = {"learning_rate": 0.5, "wd": 0.1} | settings
        await module.init_optimizer(optimizer_params=settings)
        if change is not None:
            await module.step(batch())  # its numbers must not be kept
            await module.set_params(start, {})
            change(module.optimizer)
        await module.step(batch())
        got, _ = await module.get_params()
        gradients = await module.get_grads()
        return {n: (got[n] - start[n], start[n], gradients[n] / 8) for n in start}


@pytest.mark.parametrize("where", WHERE)
async def test_multipliers_that_are_set_act_with_the_next_step(where: str) -> None:
    def change(optimizer: mx.optimizer.Optimizer) -> None:
        optimizer.set_lr_mult({"fc1_weight": 0.0, "fc2_bias": 3.0})
        optimizer.set_wd_mult({"fc2_bias": 2.0, "fc2_weight": 0.0})

    rates = {"fc1_weight": 0.0, "fc2_bias": 1.5}
    decays = {"fc1_weight": 0.1, "fc2_bias": 0.2}
    for name, (moved, start, gradient) in (await one_step(where, change)).items():
        rate, decay = rates.get(name, 0.5), decays.get(name, 0.0)
        np.testing.assert_allclose(
            moved, -rate * (gradient + decay * start), rtol=1e-4, atol=1e-6
        )


async def test_biases_do_not_decay_unless_told_to() -> None:
    for name, (moved, start, gradient) in (await one_step("cpu")).items():
        decay = 0.1 if name.endswith("_weight") else 0.0
        np.testing.assert_allclose(
            moved, -0.5 * (gradient + decay * start), rtol=1e-4, atol=1e-6
        )


def test_a_scheduler_is_told_of_another_rate_only() -> None:
    """MXNet's notice is printed where `learning_rate` differs from `base_lr`."""
    with structlog.testing.capture_logs() as logs:
        for rate in (0.5, 0.25):
            schedule = mx.lr_scheduler.FactorScheduler(10, base_lr=0.5)
            made = mx.optimizer.SGD(learning_rate=rate, lr_scheduler=schedule)
            assert schedule.base_lr == made.learning_rate == rate
    assert ["overwritten" in log["event"] for log in logs] == [True]
