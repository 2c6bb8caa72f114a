"""Binding in all its forms: shapes, requests, rebinding, sharing, reshaping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.errors import InputError
from asyncmod.io import DataBatch, DataDesc
from tests.asyncmod.module.nets import (
    KINDS,
    batch,
    mlp,
    mlp_bn,
    ready,
    rows,
    same,
    values,
)

SETTINGS = {"learning_rate": 0.5, "momentum": 0.9}
DATA, LABEL = [("data", (8, 5))], [("softmax_label", (8,))]
TWO = [mx.reference(0), mx.reference(1)]


def linear() -> mx.symbol.Symbol:
    """a + 2b + 3c."""
    a, b, c = (mx.sym.Variable(name) for name in "abc")
    return a + 2 * b + 3 * c


@pytest.mark.parametrize(
    "arguments",
    [
        (DATA, LABEL),
        (DATA, LABEL, True, False, False, None, "write"),
        ([DataDesc("data", (8, 5))], [DataDesc("softmax_label", (8,))]),
        ([["data", [8, 5]]], [["softmax_label", [8]]]),
    ],
)
async def test_forms_of_shapes(arguments: tuple[Any, ...]) -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await module.bind(*arguments)
        assert module.data_shapes == DATA
        assert module.label_shapes == LABEL
        assert module.output_shapes == [("softmax_output", (8, 3))]


async def test_shapes_one_by_one() -> None:
    names = ["a", "b", "c"]
    async with mx.Module(linear(), names, None, context=mx.reference(0)) as module:
        await module.bind(
            DataDesc("c", (4, 2)), ("a", (4, 2)), ["b", (4, 2)], for_training=False
        )
        assert [d.name for d in module.data_shapes] == ["c", "a", "b"]
        assert not module.for_training
        assert module.label_shapes == []


@pytest.mark.parametrize("kind", KINDS)
async def test_input_gradients_come_in_bound_order(kind: str) -> None:
    """MXNet's test: data_names b, c, a; two contexts; five rows."""
    context = [KINDS[kind](i) for i in range(2)]
    module = mx.Module(linear(), ["b", "c", "a"], None, context=context)
    async with module:
        shape = (5, 10)
        await module.bind(
            [("b", shape), ("c", shape), ("a", shape)], inputs_need_grad=True
        )
        await module.init_params()
        ones = np.ones(shape, np.float32)
        await module.forward(DataBatch([ones, ones, ones]))
        await module.backward([ones])
        b, c, a = await module.get_input_grads()
        assert (a == 1).all()
        assert (b == 2).all()
        assert (c == 3).all()
        per_device = await module.get_input_grads(merge_multi_context=False)
        assert [[len(part) for part in parts] for parts in per_device] == [[2, 3]] * 3
        merged = await module.get_input_grads_merged()
        assert same(merged, [b, c, a])


@pytest.mark.parametrize("kind", KINDS)
async def test_arrays_follow_the_order_of_the_bound_shapes(kind: str) -> None:
    module = mx.Module(linear(), ["a", "b", "c"], None, context=KINDS[kind](0))
    async with module:
        shape = (2, 2)
        await module.bind([("c", shape), ("a", shape), ("b", shape)])
        await module.init_params()
        arrays = [np.full(shape, n, np.float32) for n in (100, 1, 10)]
        await module.forward(DataBatch(arrays))
        assert ((await module.get_outputs())[0] == 1 + 20 + 300).all()
        named = [DataDesc(n, shape) for n in "abc"]
        await module.forward(DataBatch(arrays, provide_data=named))
        assert ((await module.get_outputs())[0] == 100 + 2 + 30).all()


async def test_gradient_requests() -> None:
    async with mx.Module(
        mlp(), context=mx.reference(0), fixed_param_names=["fc2_bias"]
    ) as module:
        await module.bind(DATA, LABEL, grad_req={"fc1_bias": "null"})
        await module.init_params(arg_params=values(mlp()), aux_params={})
        await module.init_optimizer(optimizer_params=SETTINGS)
        before, _ = await module.get_params()
        await module.forward_backward(batch())
        assert set(await module.get_grads()) == {"fc1_weight", "fc2_weight"}
        await module.update()
        after, _ = await module.get_params()
        changed = {name for name in after if not same(after[name], before[name])}
        assert changed == {"fc1_weight", "fc2_weight"}


async def test_gradient_requests_as_a_list() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        requests = ["write", "add", "null", "write", "null", "null"]
        await module.bind(DATA, LABEL, grad_req=requests, inputs_need_grad=True)
        await module.init_params(arg_params=values(mlp()), aux_params={})
        await module.forward_backward(batch())
        first = await module.get_grads()
        assert set(first) == {"fc1_weight", "fc2_weight"}
        await module.forward_backward(batch())
        second = await module.get_grads()
        assert same(second["fc1_weight"], 2 * first["fc1_weight"])
        assert same(second["fc2_weight"], first["fc2_weight"])
        assert (await module.get_input_grads())[0].shape == (8, 5)
        await module.zero_grad()
        assert not (await module.get_grads())["fc1_weight"].any()


async def test_input_gradients_that_are_not_wanted_are_none() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await module.bind(DATA, LABEL, inputs_need_grad=True, grad_req={"data": "null"})
        await module.init_params()
        await module.forward_backward(batch())
        assert await module.get_input_grads() == [None]
        assert await module.get_input_grads(merge_multi_context=False) == [None]


@pytest.mark.parametrize("context", [mx.cpu(0), TWO])
async def test_force_rebind_keeps_updates_and_optimizer(context: Any) -> None:
    async with mx.Module(mlp(), context=context) as module:
        await ready(module, **SETTINGS)
        await module.step(batch(8, 0))
        optimizer = module.optimizer
        before = await module.get_params()
        await module.bind(
            [("data", (4, 5))], [("softmax_label", (4,))], force_rebind=True
        )
        assert same(await module.get_params(), before)
        assert module.optimizer is optimizer
        assert module.data_shapes == [("data", (4, 5))]
        with pytest.raises(AssertionError, match="needs a forward"):
            await module.get_outputs()
        await module.step(batch(8, 1))
        rebound = await module.get_params()
    async with mx.Module(mlp(), context=context) as module:
        await ready(module, **SETTINGS)
        await module.step(batch(8, 0))
        await module.step(batch(8, 1))
        assert same(await module.get_params(), rebound)


async def test_a_rebind_that_fails_changes_nothing() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module, **SETTINGS)
        await module.forward(batch())
        outputs = await module.get_outputs()
        with pytest.raises(ValueError, match=r"\(8, 7, 7\)"):
            await module.bind(DATA, [("softmax_label", (8, 7, 7))], force_rebind=True)
        assert module.label_shapes == LABEL
        assert same(await module.get_outputs(), outputs)
        await module.step(batch())


async def test_a_shared_module_has_one_set_of_parameters() -> None:
    async with mx.open_runtime():
        owner = await ready(mx.Module(mlp(), context=TWO), **SETTINGS)
        other = mx.Module(mlp(), context=TWO)
        await other.bind(
            [("data", (4, 5))], [("softmax_label", (4,))], shared_module=owner
        )
        assert other.params_initialized
        assert other.optimizer_initialized
        await owner.step(batch(8, 0))
        assert same(await other.get_params(), await owner.get_params())
        await other.step(batch(4, 1))
        assert same(await other.get_params(), await owner.get_params())
        # Momentum and counts are shared as well.
        assert owner.optimizer is other.optimizer
        assert owner.optimizer is not None
        assert owner.optimizer.num_update == 2
        kept, _ = await owner.get_params()
        await owner.aclose()
        await other.step(batch(4, 2))
        assert not same((await other.get_params())[0], kept)


async def test_borrow_optimizer() -> None:
    async with mx.open_runtime():
        owner = await ready(mx.Module(mlp(), context=mx.reference(0)))
        other = mx.Module(mlp(), context=mx.reference(0))
        await other.bind(DATA, LABEL, shared_module=owner)
        assert not other.optimizer_initialized
        with pytest.raises(AssertionError, match="with an optimizer"):
            other.borrow_optimizer(owner)
        await owner.init_optimizer()
        other.borrow_optimizer(owner)
        await other.step(batch())
        assert same(await other.get_params(), await owner.get_params())


async def test_reshape_as_in_mxnet() -> None:
    """MXNet's test: seven rows on two contexts; rescaling stays 1/7 at 14 rows."""
    data = mx.sym.Variable("data")
    net = mx.sym.FullyConnected(data, num_hidden=20, name="fc")
    async with mx.Module(net, ["data"], None, context=TWO) as module:
        await module.bind([("data", (7, 20))])
        await module.init_params()
        await module.init_optimizer(optimizer_params={"learning_rate": 1})
        await module.forward(DataBatch([np.ones((7, 20), np.float32)]))
        await module.backward([np.ones((7, 20), np.float32)])
        await module.update()
        [out] = await module.get_outputs()
        assert out.shape == (7, 20)
        values, _ = await module.get_params()
        np.testing.assert_allclose(values["fc_bias"], -1)
        await module.reshape([("data", (14, 20))])
        assert module.data_shapes == [("data", (14, 20))]
        assert module.output_shapes == [("fc_output", (14, 20))]
        await module.forward(DataBatch([np.ones((14, 20), np.float32)]))
        await module.backward([np.ones((14, 20), np.float32)])
        await module.update()
        values, _ = await module.get_params()
        np.testing.assert_allclose(values["fc_bias"], -3)


async def test_reshape_refuses_what_does_not_fit() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        with pytest.raises(InputError, match=r"`data` \(8, 6\).*`data` \(8, 5\)"):
            await module.reshape([("data", (8, 6))], LABEL)
        with pytest.raises(AssertionError, match="same batch size"):
            await module.reshape([("data", (9, 5))], LABEL)
        assert module.data_shapes == DATA
        await module.forward(batch())


async def test_training_after_a_reshape_without_labels_reads_its_labels() -> None:
    results = []
    for reshaped in (False, True):
        async with mx.Module(mlp(), context=TWO) as module:
            await ready(module, learning_rate=0.1)
            if reshaped:
                await module.reshape([("data", (3, 5))])
            await module.step(batch(3))
            results.append(await module.get_params())
            data, label = batch(3).data, batch(4).label
            with pytest.raises(InputError, match=r"`softmax_label` .* 4 rows"):
                await module.step(DataBatch(data, label))
    assert same(*results)


@pytest.mark.parametrize("kind", KINDS)
async def test_forward_with_changing_shapes(kind: str) -> None:
    """MXNet's test: batch and image sizes change, with two inputs; then score."""
    data = mx.sym.Variable("data")
    more = mx.sym.Variable("data2")
    pooled = mx.sym.Pooling(data, global_pool=True, kernel=(1, 1), pool_type="avg")
    net = mx.sym.Flatten(pooled) + mx.sym.FullyConnected(more, num_hidden=3, name="fc")
    net = mx.sym.SoftmaxOutput(net, name="softmax")
    context = [KINDS[kind](i) for i in range(2)]
    module = mx.Module(net, ["data", "data2"], context=context)
    random = np.random.default_rng(0)

    def given(rows: int, side: int, label: bool = True) -> DataBatch:
        images = random.normal(size=(rows, 3, side, side)).astype(np.float32)
        features = random.normal(size=(rows, 4)).astype(np.float32)
        labels = random.integers(0, 3, rows).astype(np.float32)
        return DataBatch([images, features], [labels] if label else None)

    async with module:
        first = given(10, 6)
        await module.bind(
            [("data", (10, 3, 6, 6)), ("data2", (10, 4))], [("softmax_label", (10,))]
        )
        await module.init_params(mx.init.Xavier())
        await module.init_optimizer()
        values, _ = await module.get_params()
        for rows, side in [(10, 6), (3, 6), (20, 6), (10, 8), (5, 3), (10, 6)]:
            batch = given(rows, side)
            await module.forward(batch, is_train=True)
            [out] = await module.get_outputs()
            logits = batch.data[1] @ values["fc_weight"].T + values["fc_bias"]
            logits += batch.data[0].mean((2, 3))
            expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-6)
            assert module.data_shapes[0].shape == (rows, 3, side, side)
            assert module.label_shapes == [("softmax_label", (rows,))]
            await module.backward()
            await module.update()
            values, _ = await module.get_params()
        for rows in (10, 4, 10):
            [out] = await module.predict(given(rows, 6, label=False))
            assert out.shape == (rows, 3)
        await module.bind(
            [("data", (4, 3, 6, 6)), ("data2", (4, 4))],
            for_training=False,
            force_rebind=True,
        )
        assert module.label_shapes == []
        await module.forward(first)
        assert (await module.get_outputs())[0].shape == (10, 3)


async def test_layout_says_where_the_batch_is() -> None:
    """MXNet's test: TNC data is split on axis 1."""
    net = mx.sym.Activation(mx.sym.Variable("data"), act_type="relu", __layout__="TNC")
    shape = (4, 6, 3)
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    async with mx.Module(net, label_names=None, context=TWO) as module:
        await module.bind([DataDesc("data", shape, layout="TNC")])
        await module.init_params()
        await module.forward(DataBatch([data]))
        [merged] = await module.get_outputs()
        np.testing.assert_array_equal(merged, np.maximum(data, 0))
        [parts] = await module.get_outputs(merge_multi_context=False)
        assert [part.shape for part in parts] == [(4, 3, 3), (4, 3, 3)]


@pytest.mark.parametrize("dtype", ["float16", "float64"])
async def test_other_dtypes(dtype: str) -> None:
    """MXNet's test: what goes in as float16 comes out as float16."""
    net = mx.sym.Activation(mx.sym.Variable("data"), act_type="relu")
    async with mx.Module(net, label_names=None, context=TWO) as module:
        await module.bind([DataDesc("data", (4, 3), dtype)])
        await module.init_params()
        await module.forward(DataBatch([np.ones((4, 3), np.float32)]))
        assert (await module.get_outputs())[0].dtype == dtype
        await module.backward([np.ones((4, 3))])


async def test_more_devices_than_rows() -> None:
    """Where MXNet refuses, a device idles."""
    context = [mx.reference(i) for i in range(4)]
    async with mx.Module(mlp(), context=context) as module:
        await ready(module, **SETTINGS)
        for count in (8, 6, 3, 1):
            await module.step(batch(count))
            assert (await module.get_outputs())[0].shape == (count, 3)
        many = await module.get_params()
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module, **SETTINGS)
        for count in (8, 6, 3, 1):
            await module.step(batch(count))
        one = await module.get_params()
    for name, array in one[0].items():
        np.testing.assert_allclose(many[0][name], array, rtol=1e-5, atol=1e-6)


async def test_one_batch_per_device() -> None:
    """MXNet's pre-sliced form: a list of batches."""
    data, label = rows(8)
    halves = [DataBatch([data[:4]], [label[:4]]), DataBatch([data[4:]], [label[4:]])]
    async with mx.Module(mlp(), context=TWO) as module:
        await ready(module, **SETTINGS)
        await module.forward(halves, is_train=True)
        apart = await module.get_outputs()
        await module.forward(batch())
        assert same(await module.get_outputs(), apart)
        metric = mx.metric.create("acc")
        await module.update_metric(metric, [[label[:4]], [label[4:]]], pre_sliced=True)
        assert metric.num_inst == 8


async def test_states_are_neither_data_nor_parameters() -> None:
    """MXNet's test: states are set by value, then from outputs."""
    data, state = mx.sym.Variable("data"), mx.sym.Variable("state")
    net = mx.sym.FullyConnected(data, num_hidden=3, name="fc") + state
    module = mx.Module(net, label_names=None, state_names=["state"], context=TWO)
    async with module:
        await module.bind([("data", (4, 5))], for_training=False)
        await module.init_params(mx.init.One())
        assert set((await module.get_params())[0]) == {"fc_weight", "fc_bias"}
        given = DataBatch([np.ones((4, 5), np.float32)])
        await module.set_states(value=1)
        await module.forward(given)
        [out] = await module.get_outputs()
        assert (out == 6).all()
        await module.set_states(await module.get_outputs(merge_multi_context=False))
        assert (await module.get_states())[0].shape == (4, 3)
        [[left, right]] = await module.get_states(merge_multi_context=False)
        assert left.shape == right.shape == (2, 3)
        await module.forward(given)
        [out] = await module.get_outputs()
        assert (out == 11).all()
        for wrong in ({}, {"states": [[]], "value": 1}):
            with pytest.raises(ValueError, match="either"):
                await module.set_states(**wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="2 entries for 1"):
            await module.set_states([[left, right], [left, right]])


async def test_results_are_the_callers() -> None:
    """Writing into what was given out changes nothing inside."""
    async with mx.Module(mlp_bn(), context=mx.cpu(0)) as module:
        await ready(module, **SETTINGS)
        await module.forward_backward(batch())
        for read in (module.get_outputs, module.get_grads, module.get_params):
            first: Any = await read()
            if read == module.get_params:
                first = {**first[0], **first[1]}
            arrays = first.values() if isinstance(first, dict) else first
            kept = [array.copy() for array in arrays]
            for array in arrays:
                array[...] = 77
            again: Any = await read()
            if read == module.get_params:
                again = {**again[0], **again[1]}
            arrays = again.values() if isinstance(again, dict) else again
            assert same(list(arrays), kept)
            assert all(isinstance(array, mx.nd.NDArray) for array in arrays)


async def test_outputs_stay_until_the_next_forward() -> None:
    async with mx.Module(mlp(), context=mx.cpu(0)) as module:
        await ready(module, **SETTINGS)
        await module.forward(batch(8, 1))
        before = await module.get_outputs()
        await module.backward()
        await module.update()
        await module.predict(batch(8, 2))
        assert same(await module.get_outputs(), before)
        await module.forward(batch(8, 2), is_train=False)
        assert not same(await module.get_outputs(), before)


async def test_momentum_survives_a_rebind_for_inference() -> None:
    results = []
    for detour in (False, True):
        async with mx.Module(mlp(), context=mx.cpu(0)) as module:
            await ready(module, **SETTINGS)
            await module.step(batch(8, 0))
            if detour:
                await module.bind(DATA, LABEL, for_training=False, force_rebind=True)
                await module.forward(batch())
                with pytest.raises(AssertionError, match="bound for training"):
                    await module.forward(batch(), is_train=True)
                await module.bind(DATA, LABEL, grad_req="add", force_rebind=True)
                await module.bind(DATA, LABEL, force_rebind=True)
            await module.step(batch(8, 1))
            results.append(await module.get_params())
    assert same(results[0], results[1])


async def test_random_numbers_go_on_over_shapes_and_rebinds() -> None:
    """The same forward count and seed give the same dropout, whatever came between."""

    def net() -> mx.symbol.Symbol:
        return mx.sym.Dropout(mx.sym.Variable("data"), p=0.5)

    def ones(count: int) -> DataBatch:
        return DataBatch([np.ones((count, 50), np.float32)])

    seen = []
    for detour in (False, True):
        mx.seed(3)
        async with mx.Module(net(), label_names=None, context=TWO) as module:
            await module.bind([("data", (8, 50))])
            await module.init_params()
            outputs = []
            for turn in range(4):
                await module.forward(ones(4 if turn == 1 else 8), is_train=True)
                outputs += await module.get_outputs()
                if detour and turn == 2:
                    await module.predict(ones(3))
                    await module.bind([("data", (8, 50))], force_rebind=True)
            seen.append(outputs)
            assert not same(outputs[0], outputs[2])
            assert not same(outputs[2], outputs[3])
    assert same(seen[0], seen[1])
