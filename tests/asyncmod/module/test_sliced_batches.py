"""MXNet's pre-sliced batches through every way in: one batch per context, as a list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.io import DataBatch
from tests.asyncmod.module.nets import CLASSES, Array, mlp, values

TWO = [mx.cpu(0), mx.cpu(1)]
ROWS = np.random.default_rng(4).normal(size=(22, 5)).astype(np.float32)
LABELS = (np.arange(22) % CLASSES).astype(np.float32)


class Whole(mx.io.DataIter):
    """Batches of 8 rows; the last has 2 rows of padding."""

    def __init__(self) -> None:
        super().__init__(8)
        self.provide_data = [mx.io.DataDesc("data", (8, 5))]
        self.provide_label = [mx.io.DataDesc("softmax_label", (8,))]
        self.reset()

    def reset(self) -> None:  # type: ignore[override]
        self._batches = self._read()

    def next(self) -> Any:  # type: ignore[override]
        return next(self._batches)

    def _read(self) -> Iterator[Any]:
        for begin in range(0, 22, 8):
            index = np.arange(begin, begin + 8) % 22
            yield self._made(ROWS[index], LABELS[index], 2 if begin == 16 else 0)

    def _made(self, data: Array, label: Array, pad: int) -> Any:
        return DataBatch([data], [label], pad)


class Sliced(Whole):
    """The same, each batch as a list of two."""

    def _made(self, data: Array, label: Array, pad: int) -> Any:
        return [
            DataBatch([data[:4]], [label[:4]], 0),
            DataBatch([data[4:]], [label[4:]], pad),
        ]


class AsyncSliced:
    """The same, asynchronous and with the whole contract of iterators."""

    batch_size = 8

    def __init__(self) -> None:
        self._source = Sliced()
        self.provide_data = self._source.provide_data
        self.provide_label = self._source.provide_label

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def next(self) -> Any:
        try:
            return self._source.next()
        except StopIteration:
            raise StopAsyncIteration from None

    async def __anext__(self) -> Any:
        return await self.next()

    async def reset(self) -> None:
        self._source.reset()

    async def aclose(self) -> None:
        """Nothing to close."""

    def get_state(self) -> Any:
        return {}

    def set_state(self, state: Any) -> None:
        """There is none."""


async def results(source: Any) -> dict[str, Any]:
    """What training, scoring and predicting on a source gives."""
    metric = mx.metric.create(["acc", "ce"])
    async with mx.Module(mlp(), context=TWO) as module:
        history = await module.fit(
            source, num_epoch=2, arg_params=values(mlp()), eval_metric=metric
        )
        parameters, _ = await module.get_params()
        iterated = [outputs[0] async for outputs, _, _ in module.iter_predict(source)]
        found: dict[str, Any] = {
            "score": await module.score(source, ["acc", "ce"]),
            "predict": await module.predict(source),
            "iter_predict": np.concatenate(iterated),
            "samples": [row["samples"] for row in history.epochs],
            "train": [row["train-cross-entropy"] for row in history.epochs],
        }
    return found | parameters


@pytest.mark.parametrize("source", [Sliced, AsyncSliced])
async def test_slices_through_an_iterator_give_what_whole_batches_give(
    source: Any,
) -> None:
    expected, found = await results(Whole()), await results(source())
    assert found.keys() == expected.keys()
    assert found["samples"] == [22, 22]
    assert found["predict"].shape == found["iter_predict"].shape == (22, CLASSES)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


async def test_single_calls_take_slices() -> None:
    data, label = ROWS[:8], LABELS[:8]
    halves = [DataBatch([data[:3]], [label[:3]]), DataBatch([data[3:]], [label[3:]])]
    outputs: list[Array] = []
    for batch in (DataBatch([data], [label]), halves):
        async with mx.Module(mlp(), context=TWO) as module:
            await module.bind([("data", (8, 5))], [("softmax_label", (8,))])
            await module.init_params(arg_params=values(mlp()))
            await module.init_optimizer()
            await module.prepare(batch)
            await module.forward(batch, is_train=False)
            outputs += await module.get_outputs()
            await module.step(batch)
            await module.forward_backward(batch)
            outputs += await module.get_outputs()
    np.testing.assert_array_equal(outputs[2], outputs[0])
    np.testing.assert_array_equal(outputs[3], outputs[1])


async def test_buckets_and_sequences_take_slices() -> None:
    def sym_gen(key: int) -> Any:
        data = mx.sym.sum(mx.sym.Variable("data"), axis=1, keepdims=True, name="sum")
        net = mx.sym.FullyConnected(data, num_hidden=2, name="fc")
        return mx.sym.SoftmaxOutput(net, name="softmax"), ["data"], ["softmax_label"]

    def slices(key: int) -> list[DataBatch]:
        described = {
            "provide_data": [("data", (2, key))],
            "provide_label": [("softmax_label", (2,))],
        }
        data, label = np.ones((2, key), np.float32), np.zeros(2, np.float32)
        return [DataBatch([data], [label], bucket_key=key, **described)] * 2

    def part(name: str) -> mx.symbol.Symbol:
        return mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name=name)

    sequence = mx.SequentialModule()
    sequence.add(mx.Module(part("one"), label_names=None, context=TWO))
    head = mx.sym.SoftmaxOutput(part("two"), name="softmax")
    sequence.add(mx.Module(head, context=TWO), take_labels=True, auto_wiring=True)
    buckets = mx.BucketingModule(sym_gen, 6, context=TWO)
    for module, keys in ((buckets, (6, 3)), (sequence, (6, 6))):
        async with module:
            await module.bind([("data", (4, 6))], [("softmax_label", (4,))])
            await module.init_params()
            await module.init_optimizer()
            for key in keys:
                await module.prepare(slices(key))
                await module.forward(slices(key), is_train=True)
                await module.backward()
                await module.step(slices(key))
                [out] = await module.get_outputs()
                assert out.shape == (4, 2)
                step = await module.inside.dispatch_predict(slices(key))
                assert (await step.outputs())[0].shape == (4, 2)
                await (await module.inside.dispatch_step(slices(key))).wait()


async def test_labels_per_device_are_joined_on_their_own_axis() -> None:
    net = mx.sym.Variable("data")
    net = mx.sym.LinearRegressionOutput(net, mx.sym.Variable("label"), name="lro")
    label = np.arange(8, dtype=np.float32).reshape(2, 4)
    async with mx.Module(net, label_names=["label"], context=TWO) as module:
        await module.bind(
            [mx.io.DataDesc("data", (2, 4), layout="TN")],
            [mx.io.DataDesc("label", (2, 4), layout="TN")],
        )
        await module.init_params()
        seen: list[Array] = []

        def keep(label: Array, pred: Array) -> float:
            seen.append(label)
            return 0.0

        await module.forward(DataBatch([label], [label]))
        metric = mx.metric.CustomMetric(keep, "keep")
        await module.update_metric(
            metric, [[label[:, :1]], [label[:, 1:]]], pre_sliced=True
        )
    np.testing.assert_array_equal(seen[0], label)
