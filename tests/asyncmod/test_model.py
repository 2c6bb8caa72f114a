"""`mx.model`: checkpoints under their old names."""

from __future__ import annotations

from pathlib import Path

import asyncmod as mx


def test_parameters_of_a_checkpoint(tmp_path: Path) -> None:
    prefix = tmp_path / "net"
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    weight, mean = mx.nd.ones((2, 3)), mx.nd.zeros(2)
    mx.model.save_checkpoint(prefix, 7, net, {"fc_weight": weight}, {"mean": mean})
    arguments, states = mx.model.load_params(prefix, 7)
    assert arguments["fc_weight"].tolist() == weight.tolist()
    assert states["mean"].tolist() == [0, 0]
    symbol, *parameters = mx.model.load_checkpoint(prefix, 7)
    assert symbol.tojson() == net.tojson()
    assert [list(part) for part in parameters] == [["fc_weight"], ["mean"]]
