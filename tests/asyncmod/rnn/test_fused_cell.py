"""FusedRNNCell: the same as cells step by step, with the same weights."""

from __future__ import annotations

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.errors import ArgumentError, UnsupportedError
from asyncmod.initializer import FusedRNN, InitDesc, InitializerError
from asyncmod.rnn import FusedRNNCell
from asyncmod.symbol import Symbol
from tests.asyncmod.rnn.test_cells import run, values

MODES = ["rnn_relu", "rnn_tanh", "lstm", "gru"]
SHAPE = (2, 3, 4)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("mode", MODES)
async def test_unfused_cells_compute_the_same(mode: str, bidirectional: bool) -> None:
    fused = FusedRNNCell(5, num_layers=2, mode=mode, bidirectional=bidirectional)
    apart = fused.unfuse()
    nets = []
    for cell in (fused, apart):
        net, _ = cell.unroll(3, mx.sym.var("data"), merge_outputs=True)
        assert isinstance(net, Symbol)
        nets.append(net)
    args = values(nets[0], data=SHAPE)
    (expected,) = await run(nets[0], args)
    pieces = fused.unpack_weights(args)
    (got,) = await run(nets[1], apart.pack_weights(pieces))
    assert got.shape == (2, 3, 10 if bidirectional else 5)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    packed = fused.pack_weights(pieces)
    assert packed.keys() == args.keys()
    name = f"{mode}_parameters"
    np.testing.assert_array_equal(packed[name], args[name])


def test_states_and_steps() -> None:
    cell = FusedRNNCell(5, num_layers=2, bidirectional=True, get_next_state=True)
    assert cell.state_shape == [(4, 0, 5)] * 2
    steps, states = cell.unroll(
        2, [mx.sym.var("a"), mx.sym.var("b")], layout="TNC", merge_outputs=False
    )
    assert len(list(steps)) == 2
    assert [state.list_outputs() for state in states] == [
        ["lstm_rnn_state_output"],
        ["lstm_rnn_statecell_output"],
    ]
    with pytest.raises(ArgumentError, match="1 states were given"):
        cell.unroll(2, mx.sym.var("a"), states[:1])
    with pytest.raises(UnsupportedError, match="unfuse"):
        cell(mx.sym.var("a"), states)
    with pytest.raises(ArgumentError, match="`mode` is 'rnn'"):
        FusedRNNCell(5, mode="rnn")


def test_weights_that_do_not_fit() -> None:
    cell = FusedRNNCell(5)
    with pytest.raises(ArgumentError, match="`lstm_parameters` is missing"):
        cell.unpack_weights({})
    with pytest.raises(ArgumentError, match="vector of 7 numbers does not fit"):
        cell.unpack_weights({"lstm_parameters": np.zeros(7)})
    with pytest.raises(ArgumentError, match="`lstm_l0_i2h_i_weight` is missing"):
        cell.pack_weights({})


def test_initializer() -> None:
    cell = FusedRNNCell(2, forget_bias=3.0)
    vector = np.full(4 * 2 * (3 + 2 + 2), np.nan, np.float32)
    attributes = cell.params.get("parameters").list_attr()
    mx.init.One()(InitDesc("lstm_parameters", attributes), vector)
    for name, part in cell.unpack_weights({"lstm_parameters": vector}).items():
        kind = 3.0 if name.endswith("_f_bias") else float(name.endswith("weight"))
        np.testing.assert_array_equal(part, kind, name)
    own = FusedRNN("one", 2, 1, "gru")
    assert own.dumps().startswith('["fusedrnn", {"init": "[\\"one\\", {}]", "num_hid')
    mx.init.create(own.dumps())(
        InitDesc("w", {"__init__": own.dumps()}), np.zeros(3 * 2 * (3 + 2 + 2))
    )
    with pytest.raises(InitializerError, match="needs an initializer"):
        FusedRNN(None, 2, 1, "lstm")._init_weight("w", vector)


async def test_a_module_trains_it() -> None:
    """The parameter vector is initialized part by part, and learns."""
    data = np.random.default_rng(0).normal(size=(32, 4, 3)).astype(np.float32)
    label = (data.sum(axis=(1, 2)) > 0).astype(np.float32)
    cell = FusedRNNCell(6, num_layers=2, bidirectional=True)
    net, _ = cell.unroll(4, mx.sym.Variable("data"), merge_outputs=True)
    net = mx.sym.FullyConnected(net, num_hidden=2)
    net = mx.sym.SoftmaxOutput(net, name="softmax")
    mx.random.seed(3)
    async with mx.Module(net, context=mx.cpu()) as module:
        train = mx.io.NDArrayIter(data, label, batch_size=8)
        await module.fit(
            train,
            num_epoch=12,
            initializer=mx.init.Xavier(),
            optimizer="adam",
            optimizer_params={"learning_rate": 0.01},
        )
        assert dict(await module.score(train, "acc"))["accuracy"] > 0.9
