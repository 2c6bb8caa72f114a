"""Operators that are random in prediction, too: new numbers each time, repeatable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx

BATCH, WIDTH = 8, 50
DATA = np.ones((2 * BATCH, WIDTH), np.float32)


def net() -> mx.symbol.Symbol:
    """Drops in prediction, as for an estimate of how certain a net is."""
    dropped = mx.sym.Dropout(mx.sym.Variable("data"), p=0.5, mode="always")
    return mx.sym.FullyConnected(
        mx.sym.BlockGrad(dropped), no_bias=True, num_hidden=WIDTH, name="fc"
    )


async def predictions(context: Any, **bound: Any) -> list[Any]:
    """Two predictions, a forward and a prediction from a snapshot."""
    mx.seed(3)
    data = mx.io.NDArrayIter(DATA, batch_size=BATCH)
    async with mx.Module(net(), label_names=None, context=context, **bound) as mod:
        await mod.bind(data.provide_data, for_training=False)
        await mod.init_params(arg_params={"fc_weight": np.eye(WIDTH)})
        found = [await mod.predict(data) for _ in range(2)]
        await mod.forward(mx.io.DataBatch([DATA[:BATCH]]), is_train=False)
        found += await mod.get_outputs()
        found.append(await mod.predict(data, snapshot=True))
        return found


async def test_every_prediction_draws_anew() -> None:
    first, second, third, fourth = await predictions(mx.cpu())
    assert set(np.unique(first)) == {0, 2}
    rows = {row.tobytes() for array in (first, second, third, fourth) for row in array}
    assert len(rows) == 2 * BATCH * 3 + BATCH  # no two of them alike


@pytest.mark.parametrize(
    ("context", "bound"),
    [
        ([mx.cpu(0), mx.cpu(1)], {}),
        (mx.reference(), {}),
        ([mx.cpu(0, worker="process"), mx.cpu(1)], {}),
        (mx.cpu(0), {"group2ctxs": {"none": mx.cpu(1)}}),
    ],
)
async def test_the_same_numbers_on_any_devices(context: Any, bound: Any) -> None:
    for plain, other in zip(
        await predictions(mx.cpu()), await predictions(context, **bound), strict=True
    ):
        np.testing.assert_array_equal(plain, other)


async def test_predictions_do_not_change_what_training_draws() -> None:
    batch = mx.io.DataBatch([DATA[:BATCH]])
    drawn = []
    for before in (0, 3):
        mx.seed(3)
        async with mx.Module(net(), label_names=None) as mod:
            await mod.bind([("data", (BATCH, WIDTH))])
            await mod.init_params(mx.init.One())
            for _ in range(before):
                await mod.forward(batch, is_train=False)
            await mod.forward(batch, is_train=True)
            drawn += await mod.get_outputs()
    np.testing.assert_array_equal(*drawn)


async def test_a_resumed_training_draws_on(tmp_path: Path) -> None:
    """What an evaluation draws after a resume is what it draws without a stop."""
    told = []
    for name, ends in (("whole", [3]), ("resumed", [1, 3])):
        for end in ends:
            mx.seed(3)
            loss = mx.sym.LinearRegressionOutput(net(), name="loss")
            async with mx.Module(loss, label_names=["loss_label"]) as mod:
                data = mx.io.NDArrayIter(DATA, DATA, BATCH, label_name="loss_label")
                history = await mod.fit(
                    data,
                    data,
                    "mse",
                    num_epoch=end,
                    initializer=mx.init.One(),
                    checkpoint=str(tmp_path / name),
                    resume="auto",
                )
        told.append([row["validation-mse"] for row in history.epochs][-2:])
    whole, resumed = told
    assert len(set(whole)) == 2
    assert whole == resumed
