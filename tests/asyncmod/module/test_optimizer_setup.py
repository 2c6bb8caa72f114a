"""From init_optimizer's arguments to the update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.module.optimizer_setup import BIG_ARRAY, index_names
from tests.asyncmod.module.nets import Array, batch, mlp, ready, same

NAMES = ["fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias"]
TWO = [mx.reference(0), mx.reference(1)]


async def test_rescale_grad_is_one_over_the_batch_size() -> None:
    async with mx.Module(mlp(), context=TWO) as module:
        await ready(module, learning_rate=0.1)
        assert module.optimizer is not None
        assert module.optimizer.rescale_grad == 1 / 8
        # It stays when the batch size changes, as in MXNet.
        await module.step(batch(4))
        assert module.optimizer.rescale_grad == 1 / 8
        await module.init_optimizer(
            optimizer_params={"rescale_grad": 0.5}, force_init=True
        )
        assert module.optimizer.rescale_grad == 0.5


async def test_an_optimizer_object_keeps_its_own() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        optimizer = mx.optimizer.SGD(learning_rate=0.1)
        with pytest.warns(UserWarning, match=r"rescale_grad is not normalized"):
            await module.init_optimizer(optimizer=optimizer)
        assert module.optimizer is optimizer
        assert optimizer.rescale_grad == 1.0
        assert optimizer.idx2name == dict(enumerate(NAMES))


@pytest.mark.parametrize("as_object", [True, False])
async def test_names_by_index(as_object: bool) -> None:
    """MXNet's test: idx2name is set for strings and for objects."""
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        optimizer: Any = "sgd"
        if as_object:
            optimizer = mx.optimizer.SGD(rescale_grad=1 / 8)
        await module.init_optimizer(optimizer=optimizer)
        assert module.optimizer is not None
        assert module.optimizer.idx2name == dict(enumerate(NAMES))


def test_index_names() -> None:
    sizes = {"a": 3, "b": 4}
    once = {0: "a", 1: "b"}
    per_device = {0: "a", 1: "a", 2: "b", 3: "b"}
    assert index_names("local", ["a", "b"], sizes, 1) == once
    assert index_names("local", ["a", "b"], sizes, 2) == once
    assert index_names("device", ["a", "b"], sizes, 2) == once
    assert index_names(None, ["a", "b"], sizes, 1) == once
    assert index_names(None, ["a", "b"], sizes, 2) == per_device
    big = {"a": 3, "b": BIG_ARRAY + 1}
    assert index_names("local", ["a", "b"], big, 2) == per_device
    assert index_names("device", ["a", "b"], big, 2) == once


@pytest.mark.parametrize("kvstore", [None, "local", "device", "local_allreduce_cpu"])
async def test_every_store_sums_the_gradients(kvstore: Any) -> None:
    results = []
    for context in (mx.reference(0), TWO):
        async with mx.Module(mlp(), context=context) as module:
            await ready(module)
            await module.init_optimizer(
                kvstore, optimizer_params={"learning_rate": 0.1, "wd": 0.1}
            )
            for seed in range(3):
                await module.step(batch(8, seed))
            results.append((await module.get_params())[0])
    for name, array in results[0].items():
        np.testing.assert_allclose(results[1][name], array, rtol=1e-5, atol=1e-6)


async def test_a_learning_rate_set_by_a_callback_acts() -> None:
    async with mx.Module(mlp(), context=mx.cpu(0)) as module:
        await ready(module, learning_rate=0.5)
        assert module.optimizer is not None
        before = await module.get_params()
        module.optimizer.set_learning_rate(0.0)
        await module.step(batch())
        assert same(await module.get_params(), before)
        module.optimizer.set_learning_rate(0.5)
        module.optimizer.set_lr_mult({"fc1_weight": 0.0})
        await module.step(batch())
        after, _ = await module.get_params()
        assert same(after["fc1_weight"], before[0]["fc1_weight"])
        assert not same(after["fc2_weight"], before[0]["fc2_weight"])


class SignDescent(mx.optimizer.Optimizer):
    """An optimizer of the user's own, without a fused rule."""

    def create_state(self, index: Any, weight: Array) -> Array:
        return np.zeros(1, np.float32)

    def update(self, index: Any, weight: Array, grad: Array, state: Any) -> None:
        self._update_count(index)
        state += 1
        weight -= self._get_lr(index) * np.sign(grad)


@pytest.mark.parametrize("context", [mx.cpu(0), mx.reference(0), TWO])
async def test_an_optimizer_of_the_users_own(context: Any) -> None:
    async with mx.Module(mlp(), context=context) as module:
        await ready(module)
        optimizer = SignDescent(learning_rate=0.25, rescale_grad=1 / 8)
        await module.init_optimizer(optimizer=optimizer)
        before, _ = await module.get_params()
        await module.forward_backward(batch())
        gradients = await module.get_grads()
        await module.update()
        after, _ = await module.get_params()
        for name, gradient in gradients.items():
            expected = before[name] - 0.25 * np.sign(gradient)
            np.testing.assert_array_equal(after[name], expected)
        await module.step(batch())
        assert optimizer.num_update == 2


async def test_an_optimizer_that_fails_changes_nothing() -> None:
    class Failing(SignDescent):
        def update(self, index: Any, weight: Array, grad: Array, state: Any) -> None:
            super().update(index, weight, grad, state)
            if index == 2:
                raise FloatingPointError("overflow in my rule")

    async with mx.Module(mlp(), context=TWO) as module:
        await ready(module)
        await module.init_optimizer(
            optimizer=Failing(learning_rate=0.25, rescale_grad=1 / 8)
        )
        before = await module.get_params()
        with pytest.raises(FloatingPointError, match="my rule"):
            await module.step(batch())
        assert same(await module.get_params(), before)
        await module.init_optimizer(force_init=True)
        await module.step(batch())
        assert not same(await module.get_params(), before)


async def test_a_module_whose_parameters_are_all_fixed() -> None:
    async with mx.Module(
        mlp(), context=mx.reference(0), fixed_param_names=NAMES
    ) as module:
        await ready(module, learning_rate=0.1)
        before = await module.get_params()
        await module.step(batch())
        assert same(await module.get_params(), before)


async def test_a_module_without_parameters() -> None:
    """MXNet's test: update with no parameters works."""
    data = mx.sym.Variable("data")
    net = mx.sym.LinearRegressionOutput(data, name="out")
    module = mx.Module(net, label_names=["out_label"], context=mx.reference(0))
    async with module:
        await module.bind([("data", (8, 5))], [("out_label", (8, 5))])
        await module.init_params()
        await module.init_optimizer()
        given = batch().data[0]
        await module.step(mx.io.DataBatch([given], [given]))
        assert same(await module.get_outputs(), [given])
