"""Checkpoints of nets with cells."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import asyncmod as mx


@pytest.mark.parametrize("listed", [True, False])
async def test_weights_lie_gate_by_gate_in_the_file(
    listed: bool, tmp_path: Path
) -> None:
    cell = mx.rnn.GRUCell(num_hidden=4, prefix="gru_")
    net, _ = cell.unroll(2, mx.sym.Variable("data"), merge_outputs=True)
    assert isinstance(net, mx.sym.Symbol)
    random = np.random.default_rng(0)
    shapes, _, _ = net.infer_shape(data=(3, 2, 5))
    assert shapes is not None
    weights = {
        name: mx.nd.array(random.normal(size=shape))
        for name, shape in zip(net.list_arguments(), shapes, strict=True)
        if name != "data"
    } | {"other_weight": mx.nd.ones(2)}
    cells = [cell] if listed else cell
    prefix = tmp_path / "net"
    save = mx.rnn.do_rnn_checkpoint(cells, prefix, period=2)
    for epoch in range(3):
        await save(epoch, net, weights, {"state": mx.nd.zeros(1)})
    assert sorted(os.listdir(tmp_path)) == ["net-0002.params", "net-symbol.json"]

    _, unpacked, states = mx.model.load_checkpoint(prefix, 2)
    assert "gru_i2h_weight" not in unpacked
    assert (
        unpacked["gru_i2h_r_weight"].tolist() == weights["gru_i2h_weight"][:4].tolist()
    )
    assert list(states) == ["state"]

    symbol, packed, states = mx.rnn.load_rnn_checkpoint(cells, prefix, 2)
    assert symbol.tojson() == net.tojson()
    assert list(states) == ["state"]
    assert packed.keys() == weights.keys()
    for name, weight in weights.items():
        assert packed[name].tolist() == weight.tolist()
