"""Steps with dropout draw the definition's numbers, however they are run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asyncmod as mx

BATCH, WIDTH = 8, 20


def net(hidden: int) -> mx.symbol.Symbol:
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=hidden, name="one")
    x = mx.sym.Dropout(mx.sym.Activation(x, act_type="tanh"), p=0.4)
    x = mx.sym.FullyConnected(x, num_hidden=3, name="two")
    return mx.sym.SoftmaxOutput(x, name="softmax")


async def trained(contexts: list[Any], hidden: int, steps: int = 3) -> dict[str, Any]:
    """Parameters and outputs after a few steps."""
    random = np.random.default_rng(5)
    mx.seed(11)
    np.random.seed(11)
    async with mx.Module(net(hidden), context=contexts) as mod:
        await mod.bind([("data", (BATCH, WIDTH))], [("softmax_label", (BATCH,))])
        await mod.init_params(mx.init.Xavier())
        await mod.init_optimizer(optimizer_params={"learning_rate": 0.5})
        for _ in range(steps):
            data = random.normal(size=(BATCH, WIDTH)).astype(np.float32)
            label = random.integers(0, 3, BATCH).astype(np.float32)
            await mod.step(mx.io.DataBatch([data], [label]))
        [output] = await mod.get_outputs()
        parameters, _ = await mod.get_params()
        return {**parameters, "output": output}


# Short steps are one call for all devices; long ones one for each device.
@pytest.mark.parametrize("hidden", [6, 4000])
@pytest.mark.parametrize("devices", [1, 2])
async def test_native_steps_agree_with_the_reference(hidden: int, devices: int) -> None:
    async def on(kind: Callable[[int], mx.Context]) -> dict[str, Any]:
        return await trained([kind(index) for index in range(devices)], hidden)

    expected, got = await on(mx.reference), await on(mx.cpu)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
