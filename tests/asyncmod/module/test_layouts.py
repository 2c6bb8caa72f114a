"""Where the batch lies: NT, TN, TNC and no batch axis, over one or more devices."""

from __future__ import annotations

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.io import DataBatch, DataDesc, DataIter
from tests.asyncmod.module.nets import Array

STEPS, FEATURES, CLASSES = 4, 3, 2
ROWS = 11
ONE, TWO, THREE = [mx.cpu(0)], [mx.cpu(0), mx.cpu(1)], [mx.cpu(i) for i in range(3)]


def net(layout: str) -> mx.symbol.Symbol:
    """A dense layer for each time step, and the softmax of each."""
    data = mx.sym.Variable("data")
    out = mx.sym.FullyConnected(data, num_hidden=CLASSES, flatten=False, name="fc")
    return mx.sym.SoftmaxOutput(
        out, preserve_shape=True, name="softmax", attr={"__layout__": layout}
    )


def moved(array: Array, layout: str) -> Array:
    """From batch first to the layout."""
    return array.swapaxes(0, 1) if layout.startswith("TN") else array


class Rows(DataIter):
    """Batches of 4 of 11 rows in a layout; the last batch has a row of padding."""

    def __init__(self, layout: str) -> None:
        super().__init__(4)
        random = np.random.default_rng(2)
        self.data = random.normal(size=(ROWS, STEPS, FEATURES)).astype(np.float32)
        self.labels = (self.data.sum(axis=2) > 0).astype(np.float32)
        self._layout, self._begin = layout, 0
        shape = moved(np.empty((4, STEPS, FEATURES)), layout).shape
        self.provide_data = [DataDesc("data", shape, layout=layout)]
        label = DataDesc("softmax_label", shape[:2], layout=layout[:2])
        self.provide_label = [label]

    def reset(self) -> None:  # type: ignore[override]
        self._begin = 0

    def next(self) -> DataBatch:  # type: ignore[override]
        if self._begin >= ROWS:
            raise StopIteration
        index = np.arange(self._begin, self._begin + 4) % ROWS
        self._begin += 4
        return DataBatch(
            [moved(self.data[index], self._layout)],
            [moved(self.labels[index], self._layout)],
            max(self._begin - ROWS, 0),
        )


async def results(layout: str, context: list[mx.Context]) -> dict[str, Array]:
    """What training, scoring and predicting give, batch first."""
    rows, symbol = Rows(layout), net(layout)
    weight = np.linspace(-1, 1, CLASSES * FEATURES, dtype=np.float32)
    given = {
        "fc_weight": weight.reshape(CLASSES, FEATURES),
        "fc_bias": np.zeros(CLASSES, np.float32),
    }
    async with mx.Module(symbol, context=context) as module:
        history = await module.fit(
            rows,
            num_epoch=2,
            arg_params=given,
            eval_metric=mx.metric.Accuracy(axis=-1),
            optimizer_params={"learning_rate": 1.0},
        )
        parameters, _ = await module.get_params()
        iterated = [outputs[0] async for outputs, *_ in module.iter_predict(rows)]
        axis = DataDesc.get_batch_axis(layout)
        return {
            **parameters,
            "samples": np.array([row["samples"] for row in history.epochs]),
            "train": np.array([row["train-accuracy"] for row in history.epochs]),
            "score": np.array(
                (await module.score(rows, mx.metric.Accuracy(axis=-1)))[0][1]
            ),
            "predict": moved(await module.predict(rows), layout),
            "iter_predict": moved(np.concatenate(iterated, axis), layout),
        }


@pytest.mark.parametrize("context", [ONE, TWO, THREE], ids=["1", "2", "3"])
@pytest.mark.parametrize("layout", ["NTC", "TNC"])
async def test_training_does_not_depend_on_the_layout(
    layout: str, context: list[mx.Context]
) -> None:
    expected, found = await results("NTC", ONE), await results(layout, context)
    assert found["predict"].shape == (ROWS, STEPS, CLASSES)
    assert found["samples"].tolist() == [ROWS, ROWS]
    assert expected["train"][0] > 0.5
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("layout", ["NT", "TN"])
async def test_slices_input_gradients_and_per_device_outputs_follow_the_layout(
    layout: str,
) -> None:
    data = moved(np.arange(15, dtype=np.float32).reshape(5, 3), layout)
    axis = layout.index("N")
    symbol = mx.sym.square(
        mx.sym.Variable("data"), name="sq", attr={"__layout__": layout}
    )
    async with mx.Module(symbol, label_names=None, context=TWO) as module:
        await module.bind(
            [DataDesc("data", data.shape, layout=layout)], inputs_need_grad=True
        )
        await module.init_params()
        await module.forward(DataBatch([data]))
        await module.backward([np.full_like(data, 3)])
        assert module.output_shapes == [("sq_output", data.shape)]
        [out] = await module.get_outputs()
        [gradient] = await module.get_input_grads()
        np.testing.assert_array_equal(out, data**2)
        np.testing.assert_array_equal(gradient, 6 * data)
        for read in (module.get_outputs, module.get_input_grads):
            [parts] = await read(merge_multi_context=False)
            assert [part.shape[axis] for part in parts] == [2, 3]


async def test_an_input_without_batch_axis_goes_whole_to_every_device() -> None:
    scale = np.array([[1, 10, 100]], np.float32)
    symbol = mx.sym.broadcast_mul(mx.sym.Variable("data"), mx.sym.Variable("scale"))
    names = ["data", "scale"]
    async with mx.Module(symbol, names, None, context=TWO) as module:
        await module.bind([("data", (5, 3)), DataDesc("scale", (1, 3), layout="C")])
        await module.init_params()
        await module.forward(DataBatch([np.ones((5, 3), np.float32), scale]))
        [out] = await module.get_outputs()
    np.testing.assert_array_equal(out, np.repeat(scale, 5, 0))


@pytest.mark.parametrize("context", [ONE, TWO], ids=["1", "2"])
async def test_an_output_without_batch_axis_is_neither_cut_nor_split(
    context: list[mx.Context],
) -> None:
    """A scalar loss, declared so: the first device's, as in MXNet."""
    loss = mx.sym.MakeLoss(
        mx.sym.sum(mx.sym.Variable("data")), name="loss", attr={"__layout__": "C"}
    )
    rows = mx.io.NDArrayIter(np.ones((6, 2), np.float32), batch_size=4)
    async with mx.Module(loss, label_names=None, context=context) as module:
        await module.bind(rows.provide_data, for_training=False)
        await module.init_params()
        out = await module.predict(rows)
    assert out.tolist() == [8 / len(context)] * 2


def flattened() -> mx.symbol.Symbol:
    """A sequence model's head: rows of all time steps under one softmax."""
    data = mx.sym.Reshape(mx.sym.Variable("data"), shape=(-1, FEATURES))
    label = mx.sym.Reshape(mx.sym.Variable("softmax_label"), shape=(-1,))
    out = mx.sym.FullyConnected(data, num_hidden=CLASSES, name="fc")
    return mx.sym.SoftmaxOutput(out, label, name="softmax")


@pytest.mark.parametrize("context", [ONE, TWO, THREE], ids=["1", "2", "3"])
@pytest.mark.parametrize("layout", ["NTC", "TNC"])
async def test_flattened_rows_are_compared_with_their_own_labels(
    layout: str, context: list[mx.Context]
) -> None:
    rows = Rows("NTC")
    weight = np.linspace(-1, 1, CLASSES * FEATURES).reshape(CLASSES, FEATURES)
    score = rows.data @ weight.T
    chance = np.exp(score) / np.exp(score).sum(axis=2, keepdims=True)
    picked = np.take_along_axis(chance, rows.labels[..., None].astype(int), axis=2)
    expected = np.exp(-np.log(picked).mean())
    source = Rows(layout)
    async with mx.Module(flattened(), context=context) as module:
        await module.bind(source.provide_data, source.provide_label)
        await module.init_params(
            arg_params={"fc_weight": weight, "fc_bias": np.zeros(CLASSES)}
        )
        metric = mx.metric.Perplexity(None)
        [(_, found)] = await module.score(source, metric)
        assert found == pytest.approx(expected, rel=1e-5)
        metric.reset()
        source.reset()
        for _ in range(2):  # the batches without padding
            batch = source.next()
            await module.forward(batch, is_train=False)
            await module.update_metric(metric, batch.label)
        full = np.exp(-np.log(picked[:8]).mean())
        assert metric.get()[1] == pytest.approx(full, rel=1e-5)
