"""`state_names`: inputs that are neither data nor parameters, kept between batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.errors import ArgumentError, InputError, ModuleStateError, ShapeError
from asyncmod.io import DataBatch, DataDesc

TWO = [mx.cpu(0), mx.cpu(1)]


def cell(prefix: str = "") -> mx.symbol.Symbol:
    """data + state."""
    return mx.sym.elemwise_add(
        mx.sym.Variable(f"{prefix}data"), mx.sym.Variable(f"{prefix}state"), name="sum"
    )


def ones(*shape: int) -> DataBatch:
    return DataBatch([np.ones(shape, np.float32)])


async def bound(module: mx.Module, *shape: int, layout: str = "NC") -> mx.Module:
    await module.bind([DataDesc("data", shape, layout=layout)], for_training=False)
    await module.init_params()
    return module


async def test_upstream_test_module_states() -> None:
    stack = mx.rnn.SequentialRNNCell()
    for i in range(2):
        stack.add(mx.rnn.LSTMCell(num_hidden=20, prefix=f"lstm_l{i}_"))
    begin_state = stack.begin_state(func=mx.sym.Variable)
    _, states = stack.unroll(
        10, begin_state=begin_state, inputs=mx.sym.Variable("data")
    )
    names = [state.name for state in begin_state]
    module = mx.Module(
        mx.sym.Group(states), label_names=None, state_names=names, context=TWO
    )
    batch = DataBatch([np.zeros((5, 10), np.float32)], [])
    async with module:
        await module.bind([("data", (5, 10))], None, for_training=False)
        await module.init_params()
        await module.set_states(value=1)
        await module.forward(batch)
        out = await module.get_outputs(merge_multi_context=False)
        first = await module.get_outputs(merge_multi_context=True)
        await module.set_states(states=out)
        await module.forward(batch)
        second = await module.get_outputs(merge_multi_context=True)
    assert len(first) == len(second) == 4
    for a, b in zip(first, second, strict=True):
        assert a.shape == b.shape == (5, 20)
        assert not np.allclose(a, b, rtol=1e-3)


@pytest.mark.parametrize("context", [mx.cpu(0), TWO], ids=["one", "two"])
async def test_merged_outputs_become_states(context: Any) -> None:
    net = cell()
    async with mx.Module(
        net, label_names=None, state_names=["state"], context=context
    ) as module:
        await bound(module, 5, 2)
        assert [a.tolist() for a in await module.get_states()] == [[[0, 0]] * 5]
        for count in range(1, 4):
            await module.forward(ones(5, 2))
            [out] = await module.get_outputs()
            assert (out == count).all()
            await module.set_states([out])
            [state] = await module.get_states()
            np.testing.assert_array_equal(state, out)


async def test_states_are_merged_and_split_along_their_batch_axis() -> None:
    state = mx.sym.Variable("state", __layout__="TN", shape=(2, 5))
    data = mx.sym.Variable("data")
    net = mx.sym.elemwise_add(data, state, name="sum", attr={"__layout__": "TN"})
    value = np.arange(10, dtype=np.float32).reshape(2, 5)
    async with mx.Module(
        net, label_names=None, state_names=["state"], context=TWO
    ) as module:
        await bound(module, 2, 5, layout="TN")
        await module.set_states([value])
        [parts] = await module.get_states(merge_multi_context=False)
        assert [part.shape for part in parts] == [(2, 2), (2, 3)]
        np.testing.assert_array_equal((await module.get_states())[0], value)
        await module.forward(ones(2, 5))
        [out] = await module.get_outputs()
        np.testing.assert_array_equal(out, value + 1)


async def test_a_state_without_batch_axis_is_whole_on_every_context() -> None:
    state = mx.sym.Variable("state", __layout__="C", shape=(2,))
    net = mx.sym.broadcast_add(mx.sym.Variable("data"), mx.sym.reshape(state, (1, 2)))
    async with mx.Module(
        net, label_names=None, state_names=["state"], context=TWO
    ) as module:
        await bound(module, 4, 2)
        await module.set_states([np.array([3, 4], np.float32)])
        await module.forward(ones(4, 2))
        assert (await module.get_outputs())[0].tolist() == [[4, 5]] * 4
        assert (await module.get_states())[0].tolist() == [3, 4]


async def test_a_number_fills_batches_of_any_shape_an_array_only_its_own() -> None:
    async with mx.Module(
        cell(), label_names=None, state_names=["state"], context=TWO
    ) as module:
        await bound(module, 4, 2)
        await module.set_states(value=7)
        await module.forward(ones(6, 2))
        assert ((await module.get_outputs())[0] == 8).all()
        await module.set_states([np.full((6, 2), 1, np.float32)])
        with pytest.raises(ShapeError, match=r"state `state` was set .* \(3, 2\)"):
            await module.forward(ones(4, 2))
        await module.forward(ones(6, 2))
        assert ((await module.get_outputs())[0] == 2).all()


async def test_a_graph_in_context_groups_keeps_its_states_likewise() -> None:
    with mx.AttrScope(ctx_group="left"):
        data, state = mx.sym.Variable("data"), mx.sym.Variable("state")
        net = mx.sym.elemwise_add(data, state, name="sum")
    with mx.AttrScope(ctx_group="right"):
        net = mx.sym.elemwise_mul(net, state, name="product")
    groups = {"left": mx.cpu(0), "right": mx.cpu(1)}
    async with mx.Module(
        net, label_names=None, state_names=["state"], group2ctxs=groups
    ) as module:
        await bound(module, 4, 2)
        await module.set_states(value=7)
        await module.forward(ones(6, 2))
        assert ((await module.get_outputs())[0] == 56).all()
        await module.set_states([np.full((6, 2), 2, np.float32)])
        with pytest.raises(ShapeError, match=r"state `state` was set .* \(6, 2\)"):
            await module.forward(ones(4, 2))
        await module.forward(ones(6, 2))
        assert ((await module.get_outputs())[0] == 6).all()


async def test_states_are_no_parameters_and_take_no_part_in_training() -> None:
    weight = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    net = mx.sym.LinearRegressionOutput(
        weight + mx.sym.Variable("state"), name="softmax"
    )
    async with mx.Module(net, state_names=["state"]) as module:
        data, label = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
        await module.fit(mx.io.NDArrayIter(data, label, 2), num_epoch=1)
        assert set((await module.get_params())[0]) == {"fc_weight", "fc_bias"}
        await module.set_states(value=5)
        await module.step(DataBatch([data[:2]], [label[:2]]))
        assert ((await module.get_states())[0] == 5).all()
        assert set(await module.get_grads()) == {"fc_weight", "fc_bias"}


async def test_all_buckets_have_the_same_states() -> None:
    def sym_gen(key: int) -> Any:
        total = mx.sym.sum(mx.sym.Variable("data"), axis=1, keepdims=True, name="sum")
        net = mx.sym.elemwise_add(total, mx.sym.Variable("state"), name="out")
        return net, ["data"], None

    def bucket(key: int) -> DataBatch:
        data = np.ones((4, key), np.float32)
        described = [("data", data.shape)]
        return DataBatch([data], bucket_key=key, provide_data=described)

    module = mx.BucketingModule(sym_gen, 8, state_names=["state"], context=TWO)
    async with module:
        await module.bind([("data", (4, 8))], for_training=False)
        await module.init_params()
        await module.set_states(value=100)
        for key, expected in ((8, 108), (3, 111), (8, 119), (5, 124)):
            await module.forward(bucket(key))
            [out] = await module.get_outputs()
            assert (out == expected).all()
            await module.set_states(await module.get_outputs(False))
            assert ((await module.get_states())[0] == expected).all()


async def test_a_sequence_has_the_states_of_its_modules() -> None:
    def part(state: str) -> mx.Module:
        net = mx.sym.elemwise_add(
            mx.sym.Variable("data"), mx.sym.Variable(state), name=f"{state}_sum"
        )
        return mx.Module(net, label_names=None, state_names=[state], context=TWO)

    plain = mx.Module(2 * mx.sym.Variable("data"), label_names=None, context=TWO)
    sequence = mx.SequentialModule()
    for module in (part("one"), plain, part("two")):
        sequence.add(module, auto_wiring=True)
    async with sequence:
        await sequence.bind([("data", (4, 2))], for_training=False)
        await sequence.init_params()
        await sequence.set_states(value=1)
        await sequence.forward(ones(4, 2))
        assert ((await sequence.get_outputs())[0] == 5).all()
        whole = np.full((4, 2), 10, np.float32)
        await sequence.set_states([whole, [whole[:2], whole[2:] + 10]])
        await sequence.forward(ones(4, 2))
        [out] = await sequence.get_outputs()
        assert out[:, 0].tolist() == [32, 32, 42, 42]
        one, two = await sequence.get_states()
        assert (one == 10).all()
        assert two[:, 1].tolist() == [10, 10, 20, 20]
        assert [len(s) for s in await sequence.get_states(False)] == [2, 2]
        with pytest.raises(ArgumentError, match="1 entries for 2 states: one, two"):
            await sequence.set_states([whole])


async def test_wrong_states_are_refused_and_change_nothing() -> None:
    async with mx.Module(
        cell(), label_names=None, state_names=["state"], context=TWO
    ) as module:
        with pytest.raises(ModuleStateError, match="set_states"):
            await module.set_states(value=0)
        await bound(module, 4, 2)
        await module.set_states(value=3)
        part = np.zeros((2, 2), np.float32)
        with pytest.raises(ArgumentError, match="list with one entry per state"):
            await module.set_states(part)
        with pytest.raises(InputError, match=r"shape \(2, 2\), but \(4, 2\)"):
            await module.set_states([part])
        with pytest.raises(ValueError, match="2 devices with rows"):
            await module.set_states([[part]])
        with pytest.raises(ShapeError, match="state"):
            await module.set_states([[part, part[:1]]])
        assert ((await module.get_states())[0] == 3).all()


async def test_modules_without_states_have_none_to_set() -> None:
    async with mx.Module(2 * mx.sym.Variable("data"), label_names=None) as module:
        await bound(module, 2, 2)
        assert await module.get_states() == []
        with pytest.raises(ArgumentError, match="1 entries for 0 states"):
            await module.set_states([1])
