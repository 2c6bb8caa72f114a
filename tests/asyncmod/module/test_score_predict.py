"""score, predict, iter_predict, predict_every_batch and update_metric."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.io import DataBatch, NDArrayIter
from tests.asyncmod.module.nets import KINDS, batch, mlp, ready, rows, same

TWO = [mx.reference(0), mx.reference(1)]


def two_outputs() -> mx.symbol.Symbol:
    data = mx.sym.Variable("data")
    first = mx.sym.FullyConnected(data, num_hidden=2, name="first")
    return mx.sym.Group([first, mx.sym.FullyConnected(data, num_hidden=1, name="two")])


async def whole(module: mx.Module, count: int) -> Any:
    """What the module gives for all rows as one batch."""
    return (await module.predict(DataBatch([rows(count)[0]])))[0]


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
async def test_predict_forms(kind: str, in_flight: int) -> None:
    source = NDArrayIter(*rows(20), batch_size=8)
    async with mx.Module(mlp(), context=KINDS[kind](0)) as module:
        await ready(module)
        expected = await whole(module, 20)

        async def predict(**options: Any) -> Any:
            return await module.predict(source, in_flight=in_flight, **options)

        merged = await predict()
        assert isinstance(merged, mx.nd.NDArray)
        np.testing.assert_allclose(merged, expected, rtol=1e-6)
        [listed] = await predict(always_output_list=True)
        assert same(listed, merged)
        apart = await predict(merge_batches=False)
        assert [[len(out) for out in outputs] for outputs in apart] == [[8], [8], [4]]
        assert same([np.concatenate([o for [o] in apart])], [merged])
        every = await module.predict_every_batch(source)
        assert same([o for [o] in every], [o for [o] in apart])
        for count, length in ((0, 0), (1, 8), (2, 16), (-1, 20), (None, 20), (9, 20)):
            assert len(await predict(num_batch=count)) == length
            assert len(await module.predict_every_batch(source, count)) == -(
                -length // 8
            )


async def test_predict_goes_on_without_a_reset() -> None:
    source = NDArrayIter(*rows(20), batch_size=8)
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        expected = await module.predict(source)
        first = await module.predict(source, num_batch=2)
        rest = await module.predict(source, reset=False)
        assert same(np.concatenate([first, rest]), expected)
        assert await module.predict(source, reset=False) == []


async def test_predict_several_outputs() -> None:
    source = NDArrayIter(rows(12)[0], batch_size=8)
    async with mx.Module(two_outputs(), label_names=None, context=TWO) as module:
        await module.bind([("data", (8, 5))], for_training=False)
        await module.init_params(mx.init.Normal(1))
        first, second = await module.predict(source)
        assert first.shape == (12, 2)
        assert second.shape == (12, 1)
        apart = await module.predict_every_batch(source)
        assert [[o.shape for o in outputs] for outputs in apart] == [
            [(8, 2), (8, 1)],
            [(4, 2), (4, 1)],
        ]


async def test_predict_of_one_batch_or_array() -> None:
    data, label = rows(6)
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        [out] = await module.predict(DataBatch([data], [label]))
        assert out.shape == (6, 3)
        [cut] = await module.predict(DataBatch([data], [label], pad=2))
        assert same(cut, out[:4])
        assert same(await module.predict(data), out)
        assert same(await module.predict(mx.nd.array(data)), out)

        class Lent:
            """Something that speaks DLPack and no more."""

            def __dlpack__(self, **options: Any) -> Any:
                return data.__dlpack__(**options)

            def __dlpack_device__(self) -> Any:
                return data.__dlpack_device__()

        assert same(await module.predict(Lent()), out)


class Lent:
    """An array of another library: it has DLPack, and attributes of its own."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.data = self

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


async def test_arrays_of_other_libraries() -> None:
    data, label = rows(8)

    async def lent() -> Any:
        yield DataBatch([Lent(data)], [Lent(label)])

    async with mx.Module(mlp()) as module:
        await ready(module)
        expected = await module.predict(data)
        assert same(await module.predict(Lent(data)), expected)
        [[_, value]] = await module.score(lent(), "acc", reset=False)
        assert value == (expected.argmax(1) == label).mean()


async def test_batches_that_cannot_be_merged() -> None:
    batches = [DataBatch([rows(4)[0]], index=i) for i in range(2)]
    async with mx.Module(two_outputs(), label_names=None, context=TWO) as module:
        inside: Any = module.inside
        dispatch_predict = inside.dispatch_predict

        async def varying(batch: Any) -> Any:
            step = await dispatch_predict(batch)
            if batch.index == 1:
                outputs = step.outputs

                async def fewer() -> Any:
                    return (await outputs())[:1]

                step.outputs = fewer
            return step

        inside.dispatch_predict = varying
        await module.bind([("data", (4, 5))])
        await module.init_params()
        with pytest.raises(AssertionError, match="Cannot merge batches"):
            await module.predict(batches)
        assert len(await module.predict(batches, merge_batches=False)) == 2


async def test_iter_predict() -> None:
    source = NDArrayIter(*rows(20), batch_size=8)
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        merged = await module.predict(source)
        seen = []
        async for outputs, nbatch, given in module.iter_predict(source):
            # A step in between changes what comes, and disturbs nothing.
            [again] = await module.predict(given)
            assert same(outputs[0], again[: len(outputs[0])])
            assert given.data[0].shape == (8, 5)
            seen.append((nbatch, len(outputs[0])))
        assert seen == [(0, 8), (1, 8), (2, 4)]
        async with aclosing(module.iter_predict(source, num_batch=2)) as predictions:
            first, _, _ = await anext(predictions)
            assert same(first[0], merged[:8])
        count = 0
        async for _ in module.iter_predict(source, reset=False):
            count += 1
        assert count == 2


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
async def test_score(kind: str, in_flight: int) -> None:
    data, label = rows(20)
    source = NDArrayIter(data, label, 8)
    async with mx.Module(mlp(), context=KINDS[kind](0)) as module:
        await ready(module)
        chosen = (await whole(module, 20)).argmax(1)
        for count, rows_seen in ((None, 20), (-1, 20), (1, 8), (2, 16), (5, 20)):
            scored = await module.score(
                source, "acc", num_batch=count, in_flight=in_flight
            )
            expected = (chosen == label)[:rows_seen].mean()
            assert scored == [("accuracy", pytest.approx(expected))]
        names = [name for name, _ in await module.score(source, ["acc", "ce"])]
        assert names == ["accuracy", "cross-entropy"]


async def test_score_callbacks() -> None:
    source = NDArrayIter(*rows(20), batch_size=8)
    seen: list[Any] = []
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)

        async def batch_end(param: Any) -> None:
            seen.append((param.epoch, param.nbatch, param.eval_metric.num_inst))
            assert param.locals["self"] is module
            assert param.locals["eval_batch"].data[0].shape == (8, 5)

        await module.score(
            source,
            "acc",
            epoch=4,
            batch_end_callback=batch_end,
            score_end_callback=[lambda p: seen.append((p.epoch, p.nbatch))],
        )
    assert seen == [(4, 0, 8), (4, 1, 16), (4, 2, 20), (4, 3)]


async def test_a_module_bound_for_inference_can_be_scored() -> None:
    """With labels that are bound, not bound, or that the symbol does not have."""
    data, label = rows(20)
    source = NDArrayIter(data, label, 8)
    net = mx.sym.Variable("data")
    net = mx.sym.softmax(mx.sym.FullyConnected(net, num_hidden=3, name="fc1"))
    results = []
    for symbol, labels in (
        (mlp(), source.provide_label),
        (mlp(), None),
        (net, source.provide_label),
    ):
        names = None if symbol is net else ["softmax_label"]
        module = mx.Module(symbol, label_names=names, context=TWO)
        async with module:
            with (
                pytest.warns(UserWarning, match="label_shapes")
                if (symbol is net)
                else _nothing()
            ):
                await module.bind(source.provide_data, labels, for_training=False)
            await module.init_params(mx.init.One())
            results.append(await module.score(source, "acc"))
    assert results[0] == results[1]


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize("wrong", [3, None, "data.csv"])
async def test_what_cannot_be_predicted(wrong: Any) -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        with pytest.raises(ValueError, match="must be of type NDArray or DataIter"):
            await module.predict(wrong)


async def test_update_metric_counts_what_it_is_given() -> None:
    async with mx.Module(mlp(), context=TWO) as module:
        await ready(module)
        given = batch()
        await module.forward(given)
        metric = mx.metric.create("acc")
        await module.update_metric(metric, given.label)
        [out] = await module.get_outputs()
        assert given.label is not None
        assert metric.num_inst == 8
        assert metric.get()[1] == (out.argmax(1) == given.label[0]).mean()
        with pytest.raises(ValueError, match="0"):
            await module.update_metric(metric, [])


async def test_a_metric_may_pick_by_name() -> None:
    data = mx.sym.Variable("data")
    first = mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(data, num_hidden=3, name="fc1"), name="first"
    )
    second = mx.sym.LinearRegressionOutput(
        mx.sym.FullyConnected(data, num_hidden=1, name="fc2"), name="second"
    )
    values, label = rows(8)
    module = mx.Module(
        mx.sym.Group([first, second]),
        label_names=["second_label", "first_label"],
        context=TWO,
    )
    wanted = 2 * label + 1
    source = NDArrayIter(
        {"data": values}, {"first_label": label, "second_label": wanted[:, None]}, 8
    )
    async with module:
        await module.bind(source.provide_data, source.provide_label)
        await module.init_params(mx.init.Normal(1))
        metric = mx.metric.create(
            [
                mx.metric.Accuracy(
                    output_names=["first_output"], label_names=["first_label"]
                ),
                mx.metric.MSE(
                    output_names=["second_output"], label_names=["second_label"]
                ),
            ]
        )
        # A batch that says what its labels are may hold them in any order.
        swapped = DataBatch(
            [values],
            [wanted[:, None], label],
            provide_label=list(reversed(source.provide_label)),
        )
        await module.forward(swapped, is_train=True)
        await module.backward()
        gradients = await module.get_grads()
        await module.forward(await source.next(), is_train=True)
        await module.backward()
        assert same(await module.get_grads(), gradients)
        one, two = await module.get_outputs()
        [(_, accuracy), (_, error)] = await module.score(source, metric)
        assert accuracy == (one.argmax(1) == label).mean()
        assert error == pytest.approx(((two[:, 0] - wanted) ** 2).mean(), rel=1e-5)
