"""The disk of the checkpoints is full for a while: the training goes on, or ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import asyncmod as mx
from asyncmod.checkpoint import Checkpoint, CheckpointError, latest, saved_files
from tests.faults.disk import full, small_disk
from tests.faults.training import BATCH, ROWS, differing, train

STEPS = ROWS // BATCH
EVERY = 10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as mounted:
        if not mounted:
            pytest.skip("mounting a small file system needs root")
        yield tmp_path / "disk"


class Filler:
    """A callback: the disk is full from one batch on, and free again from another."""

    def __init__(self, folder: Path, begin: int, end: int) -> None:
        self._folder, self._begin, self._end = folder, begin, end
        self.filled = ExitStack()

    def __call__(self, param: Any) -> None:
        if param.nbatch == self._begin:
            self.filled.enter_context(full(self._folder))
        elif param.nbatch == self._end:
            self.filled.close()


def test_the_training_goes_on_and_later_files_are_saved(disk: Path) -> None:
    expected = mx.run(train, "thread", 1)
    filler = Filler(disk, EVERY + 3, STEPS - 5)
    settings = Checkpoint(disk / "net", every_batches=EVERY, on_error="log")

    async def training() -> dict[str, Any]:
        return await train("thread", 1, filler, checkpoint=settings)

    with capture_logs() as lines, filler.filled:
        got = mx.run(training)
    assert differing(got, expected) == []
    warnings = [line for line in lines if "No space left" in str(line)]
    assert len(warnings) == 2  # after 20 and 30 batches
    assert [file.number for file in saved_files(disk / "net")] == [EVERY, STEPS]


def test_the_training_ends_and_the_file_before_it_is_whole(disk: Path) -> None:
    filler = Filler(disk, EVERY + 3, STEPS)
    settings = Checkpoint(disk / "net", every_batches=EVERY)

    async def training() -> dict[str, Any]:
        return await train("thread", 1, filler, checkpoint=settings)

    with filler.filled, pytest.raises(CheckpointError) as caught:
        mx.run(training)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(disk) == [f"net-{EVERY:04d}.asyncmod"]
    file = latest(disk / "net")
    assert file is not None
    assert file.header.step == EVERY
    file.close()
    expected = mx.run(train, "thread", 1)

    async def resumed() -> dict[str, Any]:
        return await train("thread", 1, checkpoint=settings, resume="auto")

    assert differing(mx.run(resumed), expected) == []
