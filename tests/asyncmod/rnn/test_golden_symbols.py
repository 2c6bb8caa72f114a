"""Nets built from cells are the ones that MXNet 1.9.1 built, byte for byte."""

from __future__ import annotations

import json
import re

import pytest

import asyncmod as mx
from asyncmod.rnn import (
    BaseRNNCell,
    FusedRNNCell,
    GRUCell,
    LSTMCell,
    RNNCell,
    SequentialRNNCell,
)
from asyncmod.symbol import NameManager, Symbol
from tests.golden.arrays import HERE


def language_model(
    cell: BaseRNNCell,
    length: int,
    words: int,
    embed: int,
    hidden: int,
    **loss: object,
) -> Symbol:
    """Embedding, cells, a dense layer and a softmax over the words of each step."""
    sym = mx.sym
    data, label = sym.Variable("data"), sym.Variable("softmax_label")
    inputs = sym.Embedding(data, input_dim=words, output_dim=embed, name="embed")
    outputs, _ = cell.unroll(length, inputs=inputs, merge_outputs=True)
    pred = sym.Reshape(outputs, shape=(-1, hidden))
    pred = sym.FullyConnected(pred, num_hidden=words, name="pred")
    label = sym.Reshape(label, shape=(-1,))
    return sym.SoftmaxOutput(pred, label, name="softmax", **loss)


def recorded(name: str, folder: str = "nets") -> str:
    return (HERE / folder / f"{name}-symbol.json").read_text("utf-8")


def test_lstm_language_model() -> None:
    with NameManager():
        cell = SequentialRNNCell()
        for layer in range(2):
            cell.add(LSTMCell(10, prefix=f"lstm_l{layer}_"))
        net = language_model(cell, length=6, words=20, embed=8, hidden=10)
    assert net.tojson() == recorded("lstm_lm")


def test_gru_and_rnn_language_model() -> None:
    with NameManager():
        cell = SequentialRNNCell()
        cell.add(GRUCell(7, prefix="gru_"))
        cell.add(RNNCell(5, activation="relu", prefix="rnn_"))
        net = language_model(
            cell,
            length=5,
            words=12,
            embed=6,
            hidden=5,
            use_ignore=True,
            ignore_label=0,
            normalization="valid",
        )
    assert net.tojson() == recorded("gru_rnn_lm")


def test_fused_lstm_language_model() -> None:
    with NameManager():
        net = language_model(FusedRNNCell(6), length=4, words=11, embed=4, hidden=6)
    assert net.tojson() == recorded("fused_lstm_lm")


@pytest.mark.parametrize("length", [3, 5, 8])
def test_buckets(length: int) -> None:
    with NameManager():
        net = language_model(LSTMCell(5), length, words=10, embed=4, hidden=5)
    assert net.tojson() == recorded(f"bucketing_{length}", "training")


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_convolutional_cells(kind: str) -> None:
    with NameManager():
        cell = getattr(mx.rnn, f"Conv{kind}Cell")(
            input_shape=(2, 3, 8, 8),
            num_hidden=4,
            h2h_kernel=(3, 5),
            h2h_dilate=(1, 2),
            i2h_stride=(2, 1),
        )
        assert {info["shape"] for info in cell.state_info} == {(0, 4, 4, 8)}
        assert {info["__layout__"] for info in cell.state_info} == {"NCHW"}
        begin = [mx.sym.Variable(f"s{i}") for i in range(len(cell.state_info))]
        inputs = [mx.sym.Variable(f"t{i}") for i in range(2)]
        outputs, states = cell.unroll(2, inputs, begin_state=begin)
    net = mx.sym.Group([*outputs, *states])
    # The automatic names go on from one recorded cell to the next.
    want = mx.sym.load_json(recorded(f"conv_{kind.lower()}_cell"))
    assert shape_of(net) == shape_of(want)


def shape_of(net: Symbol) -> list[object]:
    """The nodes of a net, less their automatic names."""
    nodes = json.loads(net.tojson())["nodes"]
    for node in nodes:
        if re.fullmatch(r"_(plus|mul|rminusscalar)\d+|leakyrelu\d+", node["name"]):
            node["name"] = node["name"].rstrip("0123456789")
    return nodes
