"""Element types: float16, float64 and integers through a module and its loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.io import DataBatch, DataDesc, NDArrayIter
from tests.asyncmod.module.nets import Array, mlp, rows, values

TWO = [mx.cpu(0), mx.cpu(1)]


async def test_upstream_test_module_dtype() -> None:
    shape = (3, 8, 7)
    net = mx.sym.Activation(mx.sym.Variable("data"), act_type="relu", __layout__="TNC")
    async with mx.Module(net, ("data",), None, context=TWO) as module:
        await module.bind([DataDesc("data", shape, np.float16, layout="TNC")])
        await module.init_params()
        await module.forward(DataBatch([mx.nd.ones(shape, dtype=np.float16)], None))
        await module.backward([mx.nd.ones(shape, dtype=np.float16)])
        [out] = await module.get_outputs()
        [parts] = await module.get_outputs(merge_multi_context=False)
    assert out.dtype == np.float16
    assert out.shape == shape
    assert [(part.dtype, part.shape) for part in parts] == [
        (np.dtype(np.float16), (3, 4, 7))
    ] * 2


async def trained(dtype: str, context: Any) -> dict[str, Any]:
    """Training, scoring and predicting with data of one type."""
    data, label = rows(24)
    source = NDArrayIter(data.astype(dtype), label, 8, keep_dtype=True)
    metric = mx.metric.create(["acc", "ce"])
    given = {name: value.astype(dtype) for name, value in values(mlp()).items()}
    async with mx.Module(mlp(), context=context) as module:
        history = await module.fit(
            source,
            num_epoch=2,
            eval_metric=metric,
            arg_params=given,
            optimizer_params={"learning_rate": 0.1, "momentum": 0.9},
        )
        parameters, _ = await module.get_params()
        return {
            "train": history.epochs[-1]["train-cross-entropy"],
            "score": dict(await module.score(source, metric))["cross-entropy"],
            "predict": await module.predict(source),
            **parameters,
        }


@pytest.mark.parametrize("context", [mx.cpu(0), TWO, mx.reference(0)], ids=str)
@pytest.mark.parametrize(("dtype", "close"), [("float16", 2e-2), ("float64", 1e-5)])
async def test_a_module_learns_in_the_type_of_its_data(
    dtype: str, close: float, context: Any
) -> None:
    expected, found = await trained("float32", mx.cpu(0)), await trained(dtype, context)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=close, err_msg=name)
        if isinstance(value, np.ndarray):
            assert value.dtype == np.float32
            assert found[name].dtype == dtype, name


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
async def test_integer_data_is_kept_exactly(dtype: str) -> None:
    """Identifiers above 2^24, which float32 could not tell apart."""
    top = 255 if dtype == "uint8" else 2**24 + 1
    ids = np.array([[1], [2], [3], [top]], dtype)
    net = mx.sym.Group([mx.sym.identity(mx.sym.Variable("data"), name="same")])
    async with mx.Module(net, label_names=None, context=TWO) as module:
        source = NDArrayIter(ids, batch_size=4, keep_dtype=True)
        await module.bind(source.provide_data, for_training=False)
        await module.init_params()
        out = await module.predict(source)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, ids)


@pytest.mark.parametrize("dtype", ["int32", "float64", "uint8"])
async def test_indexes_and_labels_may_be_integers(dtype: str) -> None:
    net = mx.sym.Embedding(
        mx.sym.Variable("data"), input_dim=6, output_dim=4, name="emb"
    )
    net = mx.sym.FullyConnected(net, num_hidden=3, name="fc")
    net = mx.sym.SoftmaxOutput(net, name="softmax")
    data = (np.arange(24).reshape(8, 3) % 6).astype(dtype)
    label = (np.arange(8) % 3).astype(dtype)
    found: list[dict[str, Array]] = []
    for kind in ("float32", dtype):
        source = NDArrayIter(data.astype(kind), label.astype(kind), 4, keep_dtype=True)
        async with mx.Module(net, context=TWO) as module:
            await module.fit(source, num_epoch=2, arg_params=values(net, data=(4, 3)))
            [(_, score)] = await module.score(source, "acc")
            parameters, _ = await module.get_params()
            found.append(parameters | {"score": np.array(score)})
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-6, err_msg=name)
        assert found[1][name].dtype in (np.float32, np.float64)


async def test_batches_of_another_type_are_cast_to_the_bound_one() -> None:
    async with mx.Module(mlp()) as module:
        await module.bind([("data", (4, 5))], [("softmax_label", (4,))])
        await module.init_params(arg_params=values(mlp()))
        data, label = rows(4)
        outputs = []
        for kind in ("float32", "float64", "float16"):
            given = DataBatch([data.astype(kind)], [label.astype("int32")])
            await module.forward(given)
            outputs += await module.get_outputs()
    assert {out.dtype for out in outputs} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(outputs[1], outputs[0])
    np.testing.assert_allclose(outputs[2], outputs[0], atol=1e-2)
