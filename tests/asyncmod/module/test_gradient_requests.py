"""`grad_req` as a string and per input, over two devices; see also `test_bind`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from tests.asyncmod.module.nets import Array, batch, mlp, values

TWO = [mx.cpu(0), mx.cpu(1)]


async def gradients(grad_req: Any, times: int, **options: Any) -> dict[str, Array]:
    """All gradients, of parameters and of data, after some backward passes."""
    async with mx.Module(mlp(), context=TWO, **options) as module:
        await module.bind(
            [("data", (8, 5))],
            [("softmax_label", (8,))],
            inputs_need_grad=True,
            grad_req=grad_req,
        )
        await module.init_params(arg_params=values(mlp()))
        for _ in range(times):
            await module.forward_backward(batch())
        [data] = await module.get_input_grads()
        found = dict(await module.get_grads())
        return found if data is None else found | {"data": data}


ALL = ("data", "fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")


@pytest.mark.parametrize(
    ("grad_req", "added", "absent"),
    [
        ("write", (), ()),
        ("add", ALL, ()),
        ("null", (), ALL),
        ({"data": "add"}, ("data",), ()),
        ({"data": "null", "fc2_weight": "add"}, ("fc2_weight",), ("data",)),
        (("add", "write", "null", "add", "write", "null"), ALL[::3], ("fc1_bias",)),
    ],
    ids=str,
)
async def test_each_argument_has_its_request(
    grad_req: Any, added: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    once, thrice = await gradients("write", 1), await gradients(grad_req, 3)
    assert set(thrice) == set(ALL) - set(absent)
    for name, value in thrice.items():
        factor = 3 if name in added else 1
        np.testing.assert_allclose(value, factor * once[name], rtol=1e-6, err_msg=name)


async def test_a_fixed_parameter_has_no_gradient_unless_a_dict_asks_for_it() -> None:
    fixed = {"fixed_param_names": ["fc1_weight", "fc1_bias"]}
    assert set(await gradients("add", 1, **fixed)) == {"data", *ALL[3:]}
    assert set(await gradients({"fc1_bias": "write"}, 1, **fixed)) == set(ALL) - {
        "fc1_weight"
    }
