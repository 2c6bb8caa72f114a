"""Which checkpoint files stay, and which one is the latest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import asyncmod as mx
from asyncmod.checkpoint import (
    Checkpoint,
    CheckpointError,
    latest,
    saved_files,
    write_checkpoint,
)
from asyncmod.checkpoint.retention import SavedFile, surplus
from asyncmod.checkpoint.saver import Saver
from asyncmod.errors import ArgumentError
from tests.asyncmod.checkpoint.samples import HEADER
from tests.asyncmod.checkpoint.scenarios import devices, iterator, perceptron
from tests.asyncmod.checkpoint.test_saver import Broken, Log


def save(prefix: Path, *numbers: int) -> None:
    for number in numbers:
        path = f"{prefix}-{number:04d}.asyncmod"
        write_checkpoint(path, replace(HEADER, step=number), {})


def numbers(prefix: Path) -> list[int]:
    return [file.number for file in saved_files(prefix)]


def test_files_of_a_prefix_by_number(tmp_path: Path) -> None:
    for name in (
        *("net-0010.asyncmod", "net-123456.asyncmod", "net-0009.asyncmod"),
        *("net-10.asyncmod", "net-0011.params", "net-x-0012.asyncmod"),
        *("net-0013.asyncmod.ab.partial", "network-0014.asyncmod"),
    ):
        (tmp_path / name).touch()
    assert numbers(tmp_path / "net") == [9, 10, 123456]
    assert saved_files(tmp_path / "net")[0].path == str(tmp_path / "net-0009.asyncmod")


def test_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("net"), 3)
    file = latest("net")
    assert file is not None
    assert file.header.step == 3


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none"):
        latest(tmp_path / "none" / "net")


def test_the_latest_valid_one(tmp_path: Path) -> None:
    log = Log()
    assert latest(tmp_path / "net", logger=log) is None
    save(tmp_path / "net", 5, 10, 15)
    for number, cut in ((15, 10), (10, 4100)):
        os.truncate(tmp_path / f"net-{number:04d}.asyncmod", cut)
    file = latest(tmp_path / "net", logger=log)
    assert file is not None
    assert file.header.step == 5
    assert len(log.lines) == 2
    for line, number in zip(log.lines, (15, 10), strict=True):
        assert f"net-{number:04d}.asyncmod is no valid checkpoint" in line


def left(
    existing: list[int], kept: set[int] = frozenset(), **settings: Any
) -> list[int]:
    files = [SavedFile(number, "") for number in existing]
    gone = surplus(files, Checkpoint("net", **settings), kept)
    return [file.number for file in files if file not in gone]


def test_what_is_kept() -> None:
    existing = [2, 4, 6, 8, 10, 12]
    assert left(existing) == [8, 10, 12]
    assert left(existing, keep_last=1) == [12]
    assert left(existing, keep_last=None) == existing
    assert left(existing, {2, 99}, keep_last=1) == [2, 12]
    assert left(existing, keep_last=1, keep_every=5) == [6, 10, 12]
    assert left(existing, keep_last=1, keep_every=2) == existing
    assert left([3], keep_last=1, keep_every=5) == [3]


@hypothesis.given(
    steps=st.lists(st.integers(1, 50), unique=True, max_size=20).map(sorted),
    keep_last=st.integers(1, 4),
    keep_every=st.integers(1, 20),
)
def test_kept_for_good(steps: list[int], keep_last: int, keep_every: int) -> None:
    """Saved one by one, the first of each period stays, and the last ones."""
    there: list[int] = []
    for step in steps:
        there = left([*there, step], keep_last=keep_last, keep_every=keep_every)
    periods: dict[int, int] = {}
    for step in steps:
        periods.setdefault(step // keep_every, step)
    firsts = {step for period, step in periods.items() if period > 0}
    assert set(there) == firsts | set(steps[-keep_last:])


async def test_older_files_go_when_the_new_one_is_there(tmp_path: Path) -> None:
    settings = Checkpoint(tmp_path / "net", keep_last=2)
    async with Saver(settings, Log()) as saver:
        for step in (1, 2, 3):
            await saver.ready()
            saver.begin(replace(HEADER, step=step))
    assert numbers(tmp_path / "net") == [2, 3]


async def test_no_file_goes_when_the_new_one_fails(tmp_path: Path) -> None:
    save(tmp_path / "net", 1, 2, 3)
    settings = Checkpoint(tmp_path / "net", keep_last=1, on_error="log")
    async with Saver(settings, Log(), Broken()) as saver:
        await saver.ready()
        saver.begin(replace(HEADER, step=4))
    assert numbers(tmp_path / "net") == [1, 2, 3]


async def test_a_damaged_newer_file_does_not_cost_the_valid_one(tmp_path: Path) -> None:
    save(tmp_path / "net", 1, 9)
    os.truncate(tmp_path / "net-0009.asyncmod", 100)
    async with Saver(Checkpoint(tmp_path / "net", keep_last=1), Log()) as saver:
        await saver.ready()
        saver.begin(replace(HEADER, step=2))
    file = latest(tmp_path / "net", logger=Log())
    assert file is not None
    assert file.header.step == 2


async def test_the_best_is_kept(tmp_path: Path) -> None:
    values = iter([0.5, 0.2, 0.1, 0.3, 0.4])

    class Given(mx.metric.EvalMetric):
        def update(self, labels: Any, preds: Any) -> None:
            pass

        def get(self) -> tuple[str, float]:
            return self.name, value

    value = 0.0

    def next_value(*args: Any) -> None:
        nonlocal value
        value = next(values)

    settings = Checkpoint(tmp_path / "net", keep_last=1, keep_best="given", mode="min")

    async def fit(num_epoch: int, **options: Any) -> None:
        async with mx.open_runtime():
            module = mx.Module(perceptron(), context=devices(1))
            await module.fit(
                iterator(),
                iterator(),
                "acc",
                validation_metric=Given("given"),
                epoch_end_callback=next_value,
                num_epoch=num_epoch,
                checkpoint=settings,
                **options,
            )

    await fit(4)
    assert numbers(tmp_path / "net") == [18, 24]
    await fit(5, resume="auto")
    assert numbers(tmp_path / "net") == [18, 30]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_batches": 0}, "`every_batches` is 0"),
        ({"every_batches": 1.5}, "an integer"),
        ({"every_epochs": True}, "`every_epochs` is True"),
        ({"every_seconds": -1.0}, "`every_seconds` is -1.0"),
        ({"every_seconds": float("nan")}, "`every_seconds` is nan"),
        ({"keep_last": 0}, "`keep_last` is 0"),
        ({"keep_every": -5}, "`keep_every` is -5"),
        ({"mode": "best"}, "`mode` is 'best'"),
        ({"on_error": "ignore"}, "`on_error` is 'ignore'"),
        ({"when_busy": "queue"}, "`when_busy` is 'queue'"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Checkpoint("net", **settings)


def test_each_epoch_unless_something_else_is_said() -> None:
    assert Checkpoint("net").every_epochs == 1
    assert Checkpoint("net", every_batches=5).every_epochs is None
    assert Checkpoint("a/net").path(7) == "a/net-0007.asyncmod"
