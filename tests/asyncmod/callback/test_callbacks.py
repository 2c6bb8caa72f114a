"""Callbacks: MXNet's lines, at MXNet's times."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from asyncmod import callback, metric
from asyncmod.interop import mxnet


class Lines:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, *args: Any) -> None:
        self.lines.append(event % args if args else event)

    def warning(self, event: str, *args: Any) -> None:
        raise AssertionError(event)


class Clock:
    """A clock that goes one quarter of a second per look."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 0.25
        return self.now


def accuracy() -> metric.EvalMetric:
    measure = metric.create("acc")
    measure.update([np.array([1, 0, 1, 1])], [np.array([1, 1, 1, 1])])
    return measure


def param(nbatch: int, measure: Any = None, epoch: int = 3) -> callback.BatchEndParam:
    return callback.BatchEndParam(epoch, nbatch, measure, {})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("asyncmod.callback.progress.perf_counter", clock)
    return clock


def test_speedometer(clock: Clock) -> None:
    lines = Lines()
    speedometer = callback.Speedometer(8, frequent=2, logger=lines)
    measure = accuracy()
    for nbatch in range(5):
        speedometer(param(nbatch, measure))
    assert lines.lines == [
        "Epoch[3] Batch [0-2]\tSpeed: 64.00 samples/sec\taccuracy=0.750000",
        "Epoch[3] Batch [2-4]\tSpeed: 64.00 samples/sec\taccuracy=nan",
    ]
    assert measure.get_global()[1] == 0.75
    speedometer(param(0, measure, epoch=4))  # a new epoch starts the clock anew
    assert len(lines.lines) == 2


def test_speedometer_without_reset_or_metric(clock: Clock) -> None:
    lines = Lines()
    speedometer = callback.Speedometer(8, 2, auto_reset=False, logger=lines)
    measure = accuracy()
    for nbatch in range(5):
        speedometer(param(nbatch, measure))
    speedometer(param(6))
    assert lines.lines == [
        "Epoch[3] Batch [0-2]\tSpeed: 64.00 samples/sec\taccuracy=0.750000",
        "Epoch[3] Batch [0-4]\tSpeed: 64.00 samples/sec\taccuracy=0.750000",
        "Iter[3] Batch [6]\tSpeed: 64.00 samples/sec",
    ]


def test_log_train_metric() -> None:
    lines = Lines()
    log = callback.log_train_metric(2, auto_reset=True, logger=lines)
    measure = accuracy()
    for nbatch in range(3):
        log(param(nbatch, measure))
    log(param(4))
    assert lines.lines == [
        "Iter[3] Batch[0] Train-accuracy=0.750000",
        "Iter[3] Batch[2] Train-accuracy=nan",
    ]


def test_progress_bar() -> None:
    lines = Lines()
    bar = callback.ProgressBar(6, length=10, logger=lines)
    for nbatch in (0, 1, 6):
        bar(param(nbatch))
    assert lines.lines == [
        "[----------] 0%\r",
        "[==--------] 17%\r",
        "[==========] 100%\r",
    ]


def test_log_validation() -> None:
    lines = Lines()
    callback.LogValidationMetricsCallback(logger=lines)(param(1, accuracy()))
    callback.LogValidationMetricsCallback(logger=lines)(param(1))
    assert lines.lines == ["Epoch[3] Validation-accuracy=0.750000"]


def test_a_standard_logger_and_the_default_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        callback.ProgressBar(4, 4, logging.getLogger("mine"))(param(2))
    assert caplog.messages == ["[==--] 50%\r"]
    with structlog.testing.capture_logs() as logs:
        callback.ProgressBar(4, 4)(param(2))
    assert [line["event"] for line in logs] == ["[==--] 50%\r"]


def test_lines_go_to_the_logger_of_the_module() -> None:
    class Module:
        logger = Lines()

    told = callback.BatchEndParam(3, 4, accuracy(), {"self": Module()})
    speedometer = callback.Speedometer(8, 2)
    for call in (
        callback.log_train_metric(2),
        callback.ProgressBar(4, 4),
        callback.LogValidationMetricsCallback(),
        speedometer,
        speedometer,
    ):
        call(told)
    assert [line.split("\t")[0] for line in Module.logger.lines] == [
        "Iter[3] Batch[4] Train-accuracy=0.750000",
        "[====] 100%\r",
        "Epoch[3] Validation-accuracy=0.750000",
        "Epoch[3] Batch [2-4]",
    ]


async def test_do_checkpoint(tmp_path: Path) -> None:
    save = callback.do_checkpoint(str(tmp_path / "net"), period=2)
    weight = np.arange(3, dtype=np.float32)
    with structlog.testing.capture_logs() as logs:
        for epoch in range(4):
            await save(epoch, None, {"w": weight}, {"m": weight + 1})
    assert [entry["event"] for entry in logs] == [
        f'Saved checkpoint to "{tmp_path}/net-000{number}.params"' for number in (2, 4)
    ]
    assert sorted(os.listdir(tmp_path)) == ["net-0002.params", "net-0004.params"]
    read = mxnet.load_params(tmp_path / "net-0002.params")
    assert {name: array.tolist() for name, array in read.items()} == {
        "arg:w": [0, 1, 2],
        "aux:m": [1, 2, 3],
    }


async def test_module_checkpoint() -> None:
    calls: list[Any] = []

    class Module:
        async def save_checkpoint(self, *args: Any) -> None:
            calls.append(args)

    save = callback.module_checkpoint(Module(), "net", 2, save_optimizer_states=True)
    for epoch in range(4):
        await save(epoch, None, {}, {})
    assert calls == [("net", 2, True), ("net", 4, True)]
