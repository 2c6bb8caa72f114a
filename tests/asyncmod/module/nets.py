"""Small nets and batches for tests of modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import asyncmod as mx
from asyncmod.io import DataBatch

Array = NDArray[Any]

KINDS = {"cpu": mx.cpu, "reference": mx.reference}
FEATURES = 5
CLASSES = 3


def mlp(hidden: int = 7, classes: int = CLASSES) -> mx.symbol.Symbol:
    """data -> fc1 -> relu -> fc2 -> softmax."""
    net = mx.sym.Variable("data")
    net = mx.sym.FullyConnected(net, num_hidden=hidden, name="fc1")
    net = mx.sym.Activation(net, act_type="relu", name="relu1")
    net = mx.sym.FullyConnected(net, num_hidden=classes, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def mlp_bn() -> mx.symbol.Symbol:
    """data -> fc1 -> batch norm -> fc2 -> softmax."""
    net = mx.sym.Variable("data")
    net = mx.sym.FullyConnected(net, num_hidden=4, name="fc1")
    net = mx.sym.BatchNorm(net, name="bn1", fix_gamma=False)
    net = mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def rows(count: int, seed: int = 0, features: int = FEATURES) -> tuple[Array, Array]:
    """Data and class labels."""
    random = np.random.default_rng(seed)
    data = random.normal(size=(count, features)).astype(np.float32)
    label = random.integers(0, CLASSES, count).astype(np.float32)
    return data, label


def batch(count: int = 8, seed: int = 0) -> DataBatch:
    """A batch for `mlp` and `mlp_bn`."""
    data, label = rows(count, seed)
    return DataBatch([data], [label])


def values(symbol: mx.symbol.Symbol, seed: int = 1, **shapes: Any) -> dict[str, Array]:
    """Small random values for all parameters of a symbol."""
    random = np.random.default_rng(seed)
    shapes = shapes or {"data": (8, FEATURES)}
    inferred, _, _ = symbol.infer_shape(**shapes)
    assert inferred is not None
    inputs = {"softmax_label", *shapes}
    return {
        name: random.normal(size=shape).astype(np.float32) / 2
        for name, shape in zip(symbol.list_arguments(), inferred, strict=True)
        if name not in inputs
    }


def aux_values(symbol: mx.symbol.Symbol) -> dict[str, Array]:
    """Means of zero and variances of one."""
    _, _, shapes = symbol.infer_shape(data=(8, FEATURES))
    assert shapes is not None
    names = symbol.list_auxiliary_states()
    return {
        name: np.full(shape, float(name.endswith("var")), np.float32)
        for name, shape in zip(names, shapes, strict=True)
    }


async def ready(
    module: mx.Module,
    count: int = 8,
    features: int = FEATURES,
    seed: int = 1,
    **optimizer_params: float,
) -> mx.Module:
    """Bind, set values, and install sgd if settings for it are given."""
    await module.bind([("data", (count, features))], [("softmax_label", (count,))])
    symbol = module.symbol
    await module.init_params(
        arg_params=values(symbol, seed, data=(count, features)),
        aux_params=aux_values(symbol),
    )
    if optimizer_params:
        await module.init_optimizer(optimizer_params=optimizer_params)
    return module


def same(left: Any, right: Any) -> bool:
    """Whether two results of get_params, or lists of arrays, are equal bit by bit."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(
            same(left[name], right[name]) for name in left
        )
    if isinstance(left, Sequence):
        return len(left) == len(right) and all(
            same(a, b) for a, b in zip(left, right, strict=True)
        )
    return bool(np.array_equal(left, right))
