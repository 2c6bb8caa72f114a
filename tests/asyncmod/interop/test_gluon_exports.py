"""What Gluon exports (`HybridBlock.export`) is a symbol with its parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import asyncmod as mx

PREFIX = Path(__file__).parents[2] / "golden" / "gluon" / "lstm"


async def test_an_lstm() -> None:
    """Its weights are vectors that are joined for the operator, with sizes unknown."""
    symbol, arguments, auxiliaries = mx.model.load_checkpoint(PREFIX, 0)
    assert symbol.list_arguments()[1] == "lstm0_l0_i2h_weight"
    with np.load(f"{PREFIX}.npz") as recorded:
        data, outputs = recorded["x"], recorded["y"]
    async with mx.Module(symbol, label_names=None) as mod:
        description = mx.io.DataDesc("data", data.shape, layout="TNC")
        await mod.bind([description], for_training=False)
        await mod.set_params(arguments, auxiliaries)
        await mod.forward(mx.io.DataBatch([data]), is_train=False)
        (found,) = await mod.get_outputs()
    np.testing.assert_allclose(found, outputs, rtol=1e-5, atol=1e-9)
