"""Nets with sparse data or gradients."""

from __future__ import annotations

from typing import Any

import asyncmod as mx


def factorization_machine(
    features: int, factors: int, init: Any = None
) -> mx.symbol.Symbol:
    """MXNet's test_factorization_machine_module: CSR data, a regression on `label`."""
    x = mx.symbol.Variable("data", stype="csr")
    v = mx.symbol.Variable(
        "v", shape=(features, factors), init=init, stype="row_sparse"
    )
    w1_weight = mx.symbol.var(
        "w1_weight", shape=(features, 1), init=init, stype="row_sparse"
    )
    w1_bias = mx.symbol.var("w1_bias", shape=(1,))
    w1 = mx.symbol.broadcast_add(mx.symbol.dot(x, w1_weight), w1_bias)
    v_s = mx.symbol._internal._square_sum(data=v, axis=1, keepdims=True)
    x_s = mx.symbol.square(data=x)
    bd_sum = mx.symbol.sparse.dot(x_s, v_s)
    w2 = mx.symbol.dot(x, v)
    w2_squared = 0.5 * mx.symbol.square(data=w2)
    w_all = mx.symbol.Concat(w1, w2_squared, dim=1)
    sum1 = mx.symbol.sum(data=w_all, axis=1, keepdims=True)
    sum2 = 0.5 * mx.symbol.negative(bd_sum)
    model = mx.symbol.elemwise_add(sum1, sum2)
    y = mx.symbol.Variable("label")
    return mx.symbol.LinearRegressionOutput(data=model, label=y)


def embedding(
    rows: int, columns: int, sparse_grad: bool = True, classes: int = 3
) -> mx.symbol.Symbol:
    """data -> Embedding -> fc -> softmax."""
    net = mx.symbol.Embedding(
        mx.symbol.Variable("data"),
        input_dim=rows,
        output_dim=columns,
        sparse_grad=sparse_grad,
        name="emb",
    )
    net = mx.symbol.FullyConnected(net, num_hidden=classes, name="fc")
    return mx.symbol.SoftmaxOutput(net, name="softmax")
