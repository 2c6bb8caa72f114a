"""Optimizers that users write in Python live in modules as the others do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.optimizer import OptimizerStatesError
from tests.asyncmod.module.nets import batch, mlp, values

WHERE = {
    "cpu": [mx.cpu(0)],
    "two of cpu": [mx.cpu(0), mx.cpu(1)],
    "two memories": [mx.reference(0), mx.Context("simulated", 1)],
}


class Heavy(mx.optimizer.Optimizer):
    """Momentum that also counts, by whatever state it is told to keep."""

    def create_state(self, index: Any, weight: Any) -> Any:
        return {"velocity": np.zeros_like(weight), "counts": [0, None, (np.int64(1),)]}

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        self._update_count(index)
        velocity, counts = state["velocity"], state["counts"]
        counts[0] += counts[2][0]
        velocity *= 0.9
        velocity -= self._get_lr(index) / counts[0] * self.rescale_grad * grad
        weight += velocity


class Odd(Heavy):
    """Keeps something that is no plain data."""

    def create_state(self, index: Any, weight: Any) -> Any:
        return object()

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        pass


def heavy() -> Heavy:
    return Heavy(learning_rate=0.1, rescale_grad=1 / 8)


async def prepare(module: mx.Module, parameters: Any, optimizer: Any) -> None:
    await module.bind([("data", (8, 5))], [("softmax_label", (8,))])
    await module.init_params(arg_params=parameters)
    await module.init_optimizer(optimizer=optimizer)


async def straight(where: str, steps: int) -> Any:
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await prepare(module, values(mlp()), heavy())
        for step in range(steps):
            await module.step(batch(seed=step))
        return (await module.get_params())[0]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("for_training", [True, False])
async def test_binding_anew_keeps_the_states(where: str, for_training: bool) -> None:
    """Also where the module was bound for inference meanwhile."""
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await prepare(module, values(mlp()), heavy())
        for step in range(3):
            await module.step(batch(seed=step))
        shapes = [("data", (8, 5))], [("softmax_label", (8,))]
        if not for_training:
            await module.bind(*shapes, for_training=False, force_rebind=True)
        await module.bind(*shapes, force_rebind=True)
        for step in range(3, 6):
            await module.step(batch(seed=step))
        got, _ = await module.get_params()
    for name, value in (await straight(where, 6)).items():
        np.testing.assert_array_equal(got[name], value)


@pytest.mark.parametrize("where", WHERE)
async def test_saved_states_continue_bit_for_bit(where: str, tmp_path: Path) -> None:
    file = tmp_path / "saved.states"
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await prepare(module, values(mlp()), heavy())
        for step in range(3):
            await module.step(batch(seed=step))
        await module.save_optimizer_states(file)
        saved, _ = await module.get_params()
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await prepare(module, saved, heavy())
        await module.load_optimizer_states(file)
        assert module.optimizer is not None
        assert module.optimizer.num_update == 3
        for step in range(3, 6):
            await module.step(batch(seed=step))
        got, _ = await module.get_params()
    for name, value in (await straight(where, 6)).items():
        np.testing.assert_array_equal(got[name], value)


async def test_a_state_that_is_no_plain_data_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "saved.states"
    async with mx.Module(mlp(), context=mx.cpu(0)) as module:
        await prepare(module, values(mlp()), Odd(rescale_grad=1 / 8))
        await module.step(batch())
        with pytest.raises(OptimizerStatesError, match=r"odd cannot be saved.*object"):
            await module.save_optimizer_states(file)
    assert await trio.Path(file).exists() is False
