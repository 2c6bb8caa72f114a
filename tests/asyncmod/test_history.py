"""History: rows that `fit` collects, and the forms in which it gives them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.errors import ArgumentError, UnsupportedError
from asyncmod.history import History
from asyncmod.io import NDArrayIter
from tests.asyncmod.module.nets import mlp, rows


def small() -> History:
    history = History()
    for epoch, accuracy in enumerate((0.5, 0.75)):
        history.add_batch(epoch=epoch, nbatch=0, accuracy=accuracy)
        history.add_epoch(epoch=epoch, **{"train-accuracy": accuracy})
    return history


def test_rows_and_columns() -> None:
    history = History()
    history.add_batch(epoch=0, nbatch=0, accuracy=0.5)
    history.add_epoch(epoch=0, accuracy=0.5)
    history.add_epoch(epoch=1, accuracy=0.75, validation=0.7)
    assert history.batches == [{"epoch": 0, "nbatch": 0, "accuracy": 0.5}]
    assert history.to_dict() == {
        "epoch": [0, 1],
        "accuracy": [0.5, 0.75],
        "validation": [None, 0.7],
    }
    assert history.to_dict("batches") == {
        "epoch": [0],
        "nbatch": [0],
        "accuracy": [0.5],
    }
    assert history.stopped_by is None
    assert History().to_dict() == {}
    with pytest.raises(ArgumentError, match="'epochs' or 'batches'"):
        history.to_dict("steps")  # type: ignore[arg-type]


def test_rows_of_batches_are_bounded() -> None:
    history = History(batch_rows=6)
    for nbatch in range(20):
        history.add_batch(epoch=0, nbatch=nbatch)
        assert len(history.batches) <= 6
        numbers = [row["nbatch"] for row in history.batches]
        assert numbers == list(range(history.dropped_batches, nbatch + 1))
        assert len(numbers) >= min(nbatch + 1, 3)


def test_events_come_before_the_batch_that_they_changed(tmp_path: Path) -> None:
    history = History()
    for epoch in range(2):
        for nbatch in range(2):
            history.add_batch(epoch=epoch, nbatch=nbatch)
        history.add_epoch(epoch=epoch)
    history.add_event("drop", epoch=0, nbatch=2, step=2, device="cpu(1)", reason="a")
    history.add_event("drop", epoch=1, nbatch=1, step=3, device="cpu(2)", reason="b")
    assert history.to_dict("events")["device"] == ["cpu(1)", "cpu(2)"]
    path = tmp_path / "history.jsonl"
    history.write_json_lines(path)
    lines = [strict(line) for line in path.read_text("utf-8").splitlines()]
    kinds = [line["kind"] for line in lines]
    assert " ".join(kinds) == "batch batch event epoch batch event batch epoch"
    assert lines[2] == {"kind": "event", **history.events[0]}


def strict(line: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)


async def test_json_lines_of_a_training(tmp_path: Path) -> None:
    async with mx.Module(mlp(), context=mx.reference()) as module:
        history = await module.fit(
            NDArrayIter(*rows(20), batch_size=8),
            eval_data=NDArrayIter(*rows(8), batch_size=8),
            eval_metric=["acc", "ce"],
            num_epoch=2,
        )
    path = tmp_path / "history.jsonl"
    history.write_json_lines(path)
    lines = [strict(line) for line in path.read_text("utf-8").splitlines()]
    assert [
        (line.pop("kind"), line["epoch"], line.get("nbatch")) for line in lines
    ] == [
        (kind, epoch, nbatch)
        for epoch in (0, 1)
        for kind, nbatch in [("batch", 0), ("batch", 1), ("batch", 2), ("epoch", None)]
    ]
    assert [line for line in lines if "nbatch" in line] == history.batches
    assert [line for line in lines if "nbatch" not in line] == history.epochs
    assert {"train-accuracy", "train-cross-entropy"} < history.batches[0].keys()


def test_json_has_no_numbers_that_are_not_finite(tmp_path: Path) -> None:
    history = History()
    history.add_epoch(
        epoch=np.int64(0),
        nan=math.nan,
        inf=[np.float32("inf"), -math.inf],
        half=np.float16(0.5),
        several=np.array([1.5, np.nan]),
        timing={"data": math.nan},
        word="text",
    )
    # Of an epoch that an error ended there are batches only.
    history.add_batch(epoch=1, nbatch=0)
    history.add_batch(epoch=1, nbatch=1)
    history.write_json_lines(tmp_path / "lines")
    first, *rest = (tmp_path / "lines").read_text().splitlines()
    assert strict(first) == {
        "kind": "epoch",
        "epoch": 0,
        "nan": None,
        "inf": [None, None],
        "half": 0.5,
        "several": [1.5, None],
        "timing": {"data": None},
        "word": "text",
    }
    assert [strict(line)["nbatch"] for line in rest] == [0, 1]


class Axis:
    """An axis that notes what is drawn."""

    def __init__(self) -> None:
        self.drawn: list[Any] = []

    def plot(self, x: Any, y: Any, *, label: str, marker: str) -> None:
        self.drawn.append((label, x, y))

    def set_ylabel(self, text: str) -> None:
        self.drawn.append(text)

    def set_xlabel(self, text: str) -> None:
        self.drawn.append(text)

    def legend(self) -> None:
        pass

    def locator_params(self, axis: str, integer: bool) -> None:
        pass


class Figure:
    """The little of matplotlib's figure that is needed."""

    def __init__(self, figsize: tuple[float, float], layout: str) -> None:
        self.axes: Any = None

    def subplots(self, count: int, squeeze: bool, sharex: bool) -> Any:
        self.axes = np.array([[Axis()] for _ in range(count)])
        return self.axes


def test_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("matplotlib.figure")
    module.Figure = Figure  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", module)
    history = History()
    history.add_epoch(epoch=3, **{"train-acc": 0.5, "validation-acc": 0.25})
    history.add_epoch(epoch=4, **{"train-acc": 0.75, "train-loss": 2.0})
    figure: Any = history.plot()
    assert [axis.drawn for axis in figure.axes[:, 0]] == [
        [("train", [3, 4], [0.5, 0.75]), ("validation", [3], [0.25]), "acc"],
        [("train", [4], [2.0]), "loss", "epoch"],
    ]
    with pytest.raises(ArgumentError, match="nothing to draw"):
        History().plot()


def test_plot_with_matplotlib(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    small().plot().savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'asyncmod\[plot\]'"):
        small().plot()


def test_training_loads_no_drawing_library_off_a_terminal() -> None:
    code = """
import asyncmod as mx, numpy, sys
async def main():
    net = mx.sym.SoftmaxOutput(mx.sym.Variable("data"), name="softmax")
    data = mx.io.NDArrayIter(numpy.eye(4), numpy.arange(4), 2)
    history = await mx.Module(net, context=mx.reference()).fit(data, num_epoch=1)
    history.to_dict()
mx.run(main)
drawing = ("asyncmod.progress.bar", "matplotlib")
print([name for name in drawing if name in sys.modules], file=sys.stderr)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
