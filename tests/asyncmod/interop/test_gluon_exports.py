"""What Gluon exports (`HybridBlock.export`) is a symbol with its parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import asyncmod as mx

FOLDER = Path(__file__).parents[2] / "golden" / "gluon"


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("lstm", {"lstm0_l0_i2h_weight"}),
        ("bidirectional_gru", {"gru0_l0_i2h_weight", "gru0_r0_i2h_weight"}),
    ],
)
async def test_recurrent_nets(name: str, unknown: set[str]) -> None:
    """Their weights are joined for the operator; some have sizes that follow."""
    symbol, arguments, auxiliaries = mx.model.load_checkpoint(FOLDER / name, 0)
    shapes = {n: a["__shape__"] for n, a in symbol.attr_dict().items() if "_i2h_" in n}
    assert {n for n, shape in shapes.items() if ", 0)" in shape} == unknown
    with np.load(FOLDER / f"{name}.npz") as recorded:
        data, outputs = recorded["x"], recorded["y"]
    async with mx.Module(symbol, label_names=None) as mod:
        description = mx.io.DataDesc("data", data.shape, layout="TNC")
        await mod.bind([description], for_training=False)
        await mod.set_params(arguments, auxiliaries)
        await mod.forward(mx.io.DataBatch([data]), is_train=False)
        (found,) = await mod.get_outputs()
    np.testing.assert_allclose(found, outputs, rtol=1e-5, atol=1e-7)
