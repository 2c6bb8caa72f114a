"""Gradients of inputs that add up are kept for every set of shapes, on any devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.io import DataBatch
from asyncmod.module import added_input_gradients
from tests.asyncmod.module.nets import same

COLUMNS, SIZES = 3, (6, 4, 6)


def net(grouped: bool = False) -> mx.symbol.Symbol:
    with mx.AttrScope(ctx_group="first" if grouped else "second"):
        hidden = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=5, name="fc1")
    with mx.AttrScope(ctx_group="second"):
        hidden = mx.sym.FullyConnected(hidden * hidden, num_hidden=2, name="fc2")
        return mx.sym.SoftmaxOutput(hidden, name="softmax")


def batch(rows: int) -> DataBatch:
    generator = np.random.default_rng(rows)
    data = generator.normal(size=(rows, COLUMNS)).astype(np.float32)
    return DataBatch([data], [np.zeros(rows, np.float32)])


def module(count: int, grouped: bool = False) -> mx.Module:
    """One that belongs to the runtime."""
    groups = {
        name: [mx.reference(10 * k + i) for i in range(count)]
        for k, name in enumerate(("first", "second"))
    }
    return mx.Module(
        net(grouped),
        context=[mx.reference(i) for i in range(count)],
        group2ctxs=groups if grouped else None,
    )


async def bound(made: mx.Module, grad_req: str = "add") -> mx.Module:
    await made.bind(
        [("data", (SIZES[0], COLUMNS))],
        [("softmax_label", (SIZES[0],))],
        inputs_need_grad=True,
        grad_req=grad_req,
    )
    generator = np.random.default_rng(0)
    shapes = {
        "fc1_weight": (5, COLUMNS),
        "fc1_bias": (5,),
        "fc2_weight": (2, 5),
        "fc2_bias": (2,),
    }
    values = {n: generator.normal(size=s) for n, s in shapes.items()}
    await made.init_params(arg_params=values)
    return made


async def gradients_of(mod: mx.Module) -> dict[int, Any]:
    """One backward more for each number of rows, and the gradients then."""
    found = {}
    for rows in dict.fromkeys(SIZES):
        await mod.forward_backward(batch(rows))
        (found[rows],) = await mod.get_input_grads()
    return found


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
async def test_they_go_on_in_another_module(count: int, grouped: bool) -> None:
    async with mx.open_runtime():
        mod = await bound(module(2, grouped))
        for rows in SIZES:
            await mod.forward_backward(batch(rows))
        executors = mod.core.need_executors("test")
        tree = await added_input_gradients.as_tree(executors)
        assert [part["data"][0][1] for part in tree] == [(6, COLUMNS), (4, COLUMNS)]
        expected = await gradients_of(mod)

        other = await bound(module(count, grouped))
        there = other.core.need_executors("test")
        await added_input_gradients.put_back(there, tree)
        found = await gradients_of(other)
    if count == 2:
        assert same(found, expected)
    for rows, gradient in expected.items():
        assert np.abs(gradient).max() > 0
        np.testing.assert_allclose(found[rows], gradient, rtol=1e-5)


async def test_what_is_overwritten_is_not_kept() -> None:
    async with mx.open_runtime():
        mod = await bound(module(2), "write")
        await mod.forward_backward(batch(6))
        executors = mod.core.need_executors("test")
        assert await added_input_gradients.as_tree(executors) == []


async def test_without_a_batch_axis_the_first_device_has_the_sum() -> None:
    whole = mx.io.DataDesc("whole", (2, 2), layout="CC")
    data = mx.io.DataDesc("data", (4, 2))
    product = mx.sym.MakeLoss(mx.sym.dot(mx.sym.var("data"), mx.sym.var("whole")))

    async def made(count: int) -> mx.Module:
        contexts = [mx.reference(i) for i in range(count)]
        names = ["data", "whole"]
        mod = mx.Module(product, names, label_names=None, context=contexts)
        await mod.bind([data, whole], inputs_need_grad=True, grad_req="add")
        await mod.init_params()
        return mod

    async with mx.open_runtime():
        mod, other = await made(2), await made(3)
        given = np.arange(8, dtype=np.float32).reshape(4, 2)
        await mod.forward_backward(DataBatch([given, np.eye(2)]))
        tree = await added_input_gradients.as_tree(mod.core.need_executors("test"))
        there = other.core.need_executors("test")
        await added_input_gradients.put_back(there, tree)
        (again,) = await added_input_gradients.as_tree(there)
        first, *others = again["gradients"]["whole"]
        assert np.array_equal(first, sum(tree[0]["gradients"]["whole"]))
        assert not np.any(others)
