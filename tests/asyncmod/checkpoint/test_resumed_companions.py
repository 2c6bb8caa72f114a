"""What takes part in `fit` besides the module goes on, too, wherever it was cut off."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.checkpoint import CheckpointError, open_checkpoint, saved_files
from asyncmod.history import History
from tests.asyncmod.checkpoint.samples import GOLDEN
from tests.asyncmod.checkpoint.scenarios import (
    devices,
    iterator,
    perceptron,
    recurrent,
    train,
)

EPOCHS = 3
BATCHES = 6 * EPOCHS
MEASURED = ("seconds", "timing", "compute", "reduce")
"""What no clock says twice."""


class Cut(Exception):
    """Raised in a callback, in place of whatever may end a program."""


@dataclass
class Outcome:
    """What there is after a training."""

    history: History
    best: mx.callback.BestParameters
    parameters: dict[str, np.ndarray[Any, Any]]
    evaluated: list[Any]


async def fit(prefix: Path, cut_at: int | None = None, **options: Any) -> Outcome:
    """Train with all that has a state; raise `Cut` after so many batches."""
    mx.seed(3)
    count = 0
    evaluated: list[Any] = []

    def after_batch(param: Any) -> None:
        nonlocal count
        count += 1
        if count == cut_at:
            raise Cut

    def after_evaluated_batch(param: Any) -> None:
        evaluated.append(param.locals["eval_batch"].index.tolist())

    async with mx.open_runtime():
        module = mx.Module(perceptron(), context=devices(2))
        best = mx.callback.BestParameters(module, "cross-entropy")
        async with best:
            history = await module.fit(
                iterator(),
                iterator(last_batch_handle="roll_over", seed=9),
                ["acc", "ce"],
                batch_end_callback=after_batch,
                eval_batch_end_callback=after_evaluated_batch,
                eval_end_callback=best,
                optimizer_params={"learning_rate": 2.0},
                num_epoch=EPOCHS,
                checkpoint=prefix,
                checkpoint_every=2,
                progress=False,
                **options,
            )
        parameters, _ = await module.get_params()
    return Outcome(history, best, parameters, evaluated)


def without_clock(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


@pytest.mark.parametrize(
    "k",
    [3, 6, 9, 14]
    + [
        pytest.param(k, marks=pytest.mark.slow)
        for k in range(1, BATCHES + 1)
        if k not in (3, 6, 9, 14)
    ],
)
async def test_all_goes_on(tmp_path: Path, k: int) -> None:
    expected = await fit(tmp_path / "whole")
    with pytest.raises(Cut):
        await fit(tmp_path / "net", k)
    got = await fit(tmp_path / "net", resume="auto")
    assert without_clock(got.history.epochs) == without_clock(expected.history.epochs)
    assert without_clock(got.history.batches) == without_clock(expected.history.batches)
    assert got.best.best == expected.best.best
    assert got.best.best_epoch == expected.best.best_epoch
    for name, array in expected.parameters.items():
        assert got.parameters[name].tobytes() == array.tobytes(), name
    assert got.evaluated
    assert got.evaluated == expected.evaluated[-len(got.evaluated) :]


async def test_what_was_cut_off_counts_in_the_times(tmp_path: Path) -> None:
    with pytest.raises(Cut):
        await fit(tmp_path / "net", 9)
    file = open_checkpoint(saved_files(tmp_path / "net")[-1].path)
    spent = file.header.state["spent"]
    assert (file.header.epoch, file.header.batch) == (1, 2)
    assert spent["samples"] == 8
    assert spent["seconds"] >= spent["data"] > 0
    resumed = await fit(tmp_path / "net", resume="auto")
    row = resumed.history.epochs[1]
    assert row["samples"] == 22
    assert row["seconds"] > spent["seconds"]
    assert row["timing"]["data"] > spent["data"]
    total = sum(row["timing"]["data"] for row in resumed.history.epochs)
    assert resumed.history.timing["data"] == pytest.approx(total)


class Odd(mx.metric.EvalMetric):
    """Its values are numbers that msgpack does not know."""

    def update(self, labels: Any, preds: Any) -> None:
        self.num_inst += 1

    def get_global(self) -> Any:
        return ["a", "b", "c"], [np.float32(np.inf), Fraction(1, 4), np.int64(3)]


async def test_numbers_of_any_kind_and_rows_that_were_dropped(tmp_path: Path) -> None:
    async def fit_odd(num_epoch: int, **options: Any) -> History:
        def shorten(param: Any) -> None:
            history = param.locals["history"]
            history.batch_rows = 8
            if param.nbatch == 3:
                history.add_event("drop", epoch=param.epoch, nbatch=4, reason="…")

        async with mx.open_runtime():
            module = mx.Module(perceptron(), context=devices(1))
            return await module.fit(
                iterator(),
                eval_metric=Odd("odd"),
                batch_end_callback=shorten,
                num_epoch=num_epoch,
                checkpoint=tmp_path / "net",
                checkpoint_every=1,
                progress=False,
                **options,
            )

    first = await fit_odd(2)
    again = await fit_odd(2, resume="auto")
    assert first.dropped_batches == again.dropped_batches == 4
    for row in again.batches:
        assert [row[f"train-{name}"] for name in "abc"] == [float("inf"), 0.25, 3]
    positions = [(row["epoch"], row["nbatch"]) for row in again.batches]
    assert positions == [(0, 4), (0, 5), *((1, n) for n in range(6))]
    assert again.events == first.events
    assert [event["epoch"] for event in again.events] == [0, 1]
    longer = await fit_odd(3, resume="auto")
    assert [row["epoch"] for row in longer.epochs] == [0, 1, 2]


class Holding:
    """A callback whose state is no plain data."""

    def __call__(self, param: Any) -> None:
        """Nothing."""

    def get_state(self) -> Any:
        return {"file": object()}

    def set_state(self, state: Any) -> None:
        """Nothing."""


async def test_a_callback_that_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"callback \(Holding\).*a object is"):
        await train("dropout", Holding(), checkpoint=tmp_path / "net")


async def test_a_file_of_an_older_version(tmp_path: Path) -> None:
    """It has neither history nor what devices carry."""
    path = tmp_path / "net-0007.asyncmod"
    shutil.copy(GOLDEN / "training-v1.asyncmod", path)
    file = open_checkpoint(str(path))
    assert not file.header.state.keys() & {"history", "spent", "callback_states"}
    resumed = await train(
        "dropout on two devices", checkpoint=tmp_path / "net", resume=path, num_epoch=1
    )
    parameters = {n: a for n, a in resumed.items() if not n.startswith("train-")}
    assert parameters.keys() == {"fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias"}
    for name, array in parameters.items():
        assert array.tobytes() == file[f"parameter/{name}"].tobytes()
    await train("dropout on two devices", checkpoint=tmp_path / "net", resume="auto")
    assert saved_files(tmp_path / "net")[-1].number == 12


async def test_other_devices_share_what_was_carried(tmp_path: Path) -> None:
    prefix = tmp_path / "net"

    async def fit_on(count: int, **options: Any) -> tuple[Any, Any, Any]:
        async with mx.open_runtime():
            module = mx.Module(
                recurrent(), context=devices(count), state_names=["state"]
            )
            rows = iterator(last_batch_handle="discard")
            await module.bind(rows.provide_data, rows.provide_label, grad_req="add")
            await module.init_params()
            if not options:
                await module.set_states(states=[state])
            await module.fit(
                rows,
                eval_metric=mx.metric.create("loss", output_names=["next_output"]),
                num_epoch=1,
                checkpoint=prefix,
                progress=False,
                **options,
            )
            split = await module.get_states(merge_multi_context=False)
            whole = await module.get_states()
            return [p.shape for p in split[0]], whole[0], await module.get_grads()

    state = np.arange(32, dtype=np.float32).reshape(4, 8)
    _, _, saved = await fit_on(2)
    for count, shapes in ((1, [(4, 8)]), (4, [(1, 8)] * 4)):
        got, whole, gradients = await fit_on(count, resume="auto")
        assert got == shapes
        assert np.array_equal(whole, state)
        for name, gradient in saved.items():
            assert np.abs(gradient).max() > 0
            assert np.array_equal(gradients[name], gradient), name
