"""Settings of an optimizer that cannot be: refused by name, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest

import asyncmod as mx
from tests.asyncmod.module.nets import batch, mlp, ready


async def test_a_misspelt_setting_is_refused_with_the_right_one() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        with pytest.raises(TypeError, match=r"`learnin_rate`.*mean `learning_rate`"):
            await module.init_optimizer(
                optimizer_params={"learnin_rate": 1}, force_init=True
            )
        with pytest.raises(TypeError, match=r"'adam' does not take.*beta1"):
            await module.init_optimizer(
                optimizer="adam", optimizer_params={"momentum": 1}, force_init=True
            )


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
async def test_a_nan_set_behind_the_back_never_reaches_the_parameters(
    optimizer: str,
) -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        await module.init_optimizer(optimizer=optimizer, force_init=True)
        await module.step(batch())
        before, _ = await module.get_params()
        assert module.optimizer is not None
        count = module.optimizer.num_update
        module.optimizer.lr = float("nan")
        with pytest.raises(ValueError, match=r"fc1_weight.* hold a NaN"):
            await module.step(batch())
        after, _ = await module.get_params()
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value)
        assert module.optimizer.num_update == count
        module.optimizer.lr = 0.1
        await module.step(batch())
