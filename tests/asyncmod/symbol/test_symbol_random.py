"""`mx.sym.random` and `mx.nd.random`, and nets that draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx

BATCH = 8


@pytest.mark.parametrize(
    ("call", "operator"),
    [
        (lambda r, a: r.uniform(0, 2, shape=(3, 4)), "_random_uniform"),
        (lambda r, a: r.uniform(a, a, shape=4), "_sample_uniform"),
        (lambda r, a: r.normal(loc=a, scale=a), "_sample_normal"),
        (lambda r, a: r.normal(shape=(3, 4), dtype="float64"), "_random_normal"),
        (lambda r, a: r.randn(3, 4, scale=2.0), "_random_normal"),
        (lambda r, a: r.gamma(1, 2, (3, 4)), "_random_gamma"),
        (lambda r, a: r.exponential(0.5, (3, 4)), "_random_exponential"),
        (lambda r, a: r.poisson(4, (3, 4)), "_random_poisson"),
        (lambda r, a: r.negative_binomial(2, 0.5, (3, 4)), "_random_negative_binomial"),
        (
            lambda r, a: r.generalized_negative_binomial(2, 0.5, (3, 4)),
            "_random_generalized_negative_binomial",
        ),
        (lambda r, a: r.randint(0, 9, (3, 4)), "_random_randint"),
        (lambda r, a: r.multinomial(a, (2,)), "_sample_multinomial"),
        (lambda r, a: r.shuffle(a), "_shuffle"),
        (lambda r, a: r.normal_like(a, scale=2.0), "_random_normal_like"),
    ],
)
def test_functions_and_their_operators(call: Any, operator: str) -> None:
    symbol = call(mx.sym.random, mx.sym.Variable("a"))
    assert f'"op": "{operator}"' in symbol.tojson()
    assert mx.sym.load_json(symbol.tojson()).tojson() == symbol.tojson()


def test_parameters_of_two_kinds() -> None:
    with pytest.raises(mx.errors.ArgumentTypeError, match="loc and scale must both be"):
        mx.sym.random.normal(mx.sym.Variable("a"), 1.0)
    with pytest.raises(AttributeError, match=r"mx\.sym\.random has no `nothing`"):
        _ = mx.sym.random.nothing


def test_arrays_follow_the_seed() -> None:
    for draw in (
        lambda: mx.nd.random.normal_like(mx.nd.ones((3, 4))),
        lambda: mx.nd.sample_uniform(mx.nd.zeros((3,)), mx.nd.ones((3,)), shape=2),
        lambda: mx.nd.random.multinomial(mx.nd.full((9, 4), 0.25)),
        lambda: mx.nd.random.negative_binomial(3, 0.5, 20),
        lambda: mx.nd.random.generalized_negative_binomial(3, 0.5, 20),
        lambda: mx.nd.Dropout(mx.nd.ones((4, 4)), mode="always"),
    ):
        mx.random.seed(1)
        first, second = draw(), draw()
        mx.random.seed(1)
        np.testing.assert_array_equal(draw(), first)
        assert (first != second).any()


def autoencoder() -> mx.symbol.Symbol:
    """A variational autoencoder, whose code is drawn."""
    data = mx.sym.Variable("data")
    mean = mx.sym.FullyConnected(data, num_hidden=3, name="mean")
    spread = mx.sym.exp(mx.sym.FullyConnected(data, num_hidden=3, name="spread"))
    noise = mx.sym.random.normal(shape=(0, 3), name="noise")
    code = mean + spread * noise
    decoded = mx.sym.FullyConnected(code, num_hidden=5, name="decoder")
    return mx.sym.LinearRegressionOutput(decoded, name="loss")


@pytest.mark.parametrize(
    "context",
    [
        mx.reference(),
        [mx.cpu(0), mx.cpu(1)],
        mx.cpu(0, worker="process"),
    ],
)
async def test_a_net_draws_the_same_on_any_devices(context: Any) -> None:
    data = np.random.default_rng(0).normal(size=(2 * BATCH, 5)).astype(np.float32)
    trained = []
    for where in (mx.cpu(), context):
        mx.seed(4)
        batches = mx.io.NDArrayIter(data, data, BATCH, label_name="loss_label")
        async with mx.Module(
            autoencoder(), label_names=["loss_label"], context=where
        ) as mod:
            await mod.fit(
                batches, eval_metric="mse", num_epoch=2, initializer=mx.init.One()
            )
            trained.append((await mod.get_params())[0])
    for name, value in trained[0].items():
        np.testing.assert_allclose(value, trained[1][name], rtol=1e-5, atol=1e-6)
