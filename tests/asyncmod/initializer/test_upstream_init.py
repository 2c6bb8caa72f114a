"""What MXNet's own tests of initializers pin down, through a bound module."""

from __future__ import annotations

import numpy as np

import asyncmod as mx


async def initialized(
    net: mx.symbol.Symbol, *shape: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Parameters and auxiliary states after `init_params` with its defaults."""
    async with mx.Module(net, label_names=None) as module:
        await module.bind([("data", shape)], for_training=False)
        await module.init_params()
        return await module.get_params()


async def test_the_slope_of_prelu_starts_at_a_quarter() -> None:
    net = mx.sym.LeakyReLU(mx.sym.Variable("data"), act_type="prelu", name="prelu")
    arguments, _ = await initialized(net, 10, 10)
    assert list(arguments) == ["prelu_gamma"]
    assert (arguments["prelu_gamma"] == 0.25).all()


async def test_running_statistics_start_at_zero_and_one() -> None:
    net = mx.sym.BatchNorm(mx.sym.Variable("data"), name="bn")
    _, auxiliaries = await initialized(net, 10, 10, 3, 3)
    assert auxiliaries["bn_moving_var"].tolist() == [1] * 10
    assert auxiliaries["bn_moving_mean"].tolist() == [0] * 10


async def test_a_variable_s_own_initializer_beats_the_default() -> None:
    gamma = mx.sym.Variable("gamma", init=mx.init.One())
    net = mx.sym.LeakyReLU(
        mx.sym.Variable("data"), gamma, act_type="prelu", name="prelu"
    )
    arguments, _ = await initialized(net, 10, 10)
    assert (arguments["gamma"] == 1).all()


async def test_bilinear_weights_of_four_by_four() -> None:
    data = mx.sym.Variable("data")
    weight = mx.sym.Variable("up_weight", init=mx.init.Bilinear())
    net = mx.sym.Deconvolution(
        data, weight, kernel=(4, 4), stride=(2, 2), num_filter=1, no_bias=True
    )
    arguments, _ = await initialized(net, 1, 1, 2, 2)
    row = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_array_equal(
        arguments["up_weight"], np.outer(row, row)[None, None]
    )
