"""Checkpoints are written beside the training, one at a time, and errors come back."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from asyncmod.checkpoint.file_system import OperatingSystem
from asyncmod.checkpoint.layout import BLOCK
from asyncmod.checkpoint.retention import saved_files
from asyncmod.checkpoint.saver import Saver
from tests.asyncmod.checkpoint.samples import HEADER
from tests.asyncmod.checkpoint.scenarios import data, devices, perceptron


class Log:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, *args: Any) -> None:
        self.lines.append(event % args)

    warning = info


class Gated(OperatingSystem):
    """Every write waits until it is let through."""

    def __init__(self) -> None:
        self.writes = threading.Semaphore(0)
        self.reached = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        self._token.run_sync_soon(self.reached.set)
        self.writes.acquire()
        return super().write(descriptor, data, offset)

    def let_through(self) -> None:
        self.writes.release(100)


class Broken(OperatingSystem):
    """The disk is full as long as `is_full`."""

    is_full = True

    def allocate(self, descriptor: int, size: int) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().allocate(descriptor, size)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def fill(saver: Saver, value: float, count: int = 4) -> None:
    saver.staging.array("a", (count,), "float64")[...] = value


async def test_training_goes_on_while_a_file_is_written(tmp_path: Path) -> None:
    system = Gated()
    async with Saver(Checkpoint(tmp_path / "net"), Log(), system) as saver:
        assert await saver.ready()
        fill(saver, 1)
        saver.begin(replace(HEADER, step=5))
        await system.reached.wait()
        saver.check()
        assert saved_files(tmp_path / "net") == []
        system.let_through()
    file = open_checkpoint(tmp_path / "net-0005.asyncmod")
    assert file["a"].tolist() == [1, 1, 1, 1]


async def test_the_next_one_waits_until_the_staging_is_free(tmp_path: Path) -> None:
    system = Gated()
    async with Saver(Checkpoint(tmp_path / "net"), Log(), system) as saver:
        await saver.ready()
        fill(saver, 1)
        memory = saver.staging.arrays["a"]
        saver.begin(replace(HEADER, step=5))
        await system.reached.wait()
        with trio.CancelScope() as scope:
            scope.cancel()
            await saver.ready()
        assert scope.cancelled_caught
        assert saver.staging.arrays["a"] is memory
        system.let_through()
        assert await saver.ready()
        fill(saver, 2)
        assert saver.staging.arrays["a"] is memory
        saver.begin(replace(HEADER, step=6))
    for step, value in ((5, 1), (6, 2)):
        file = open_checkpoint(tmp_path / f"net-{step:04d}.asyncmod")
        assert file["a"].tolist() == [value] * 4


async def test_the_next_one_is_skipped(tmp_path: Path) -> None:
    system, log = Gated(), Log()
    settings = Checkpoint(tmp_path / "net", when_busy="skip")
    async with Saver(settings, log, system) as saver:
        await saver.ready()
        saver.begin(replace(HEADER, step=5))
        await system.reached.wait()
        assert not await saver.ready()
        system.let_through()
        await saver.finish()
        assert await saver.ready()
    assert any("skipped" in line for line in log.lines)


async def test_errors_come_at_the_next_step(tmp_path: Path) -> None:
    async with Saver(Checkpoint(tmp_path / "net"), Log(), Broken()) as saver:
        for wait in (saver.ready, saver.finish):
            await saver.ready()
            saver.begin(HEADER)
            with pytest.raises(CheckpointError, match="No space left") as caught:
                await wait()
            assert caught.value.errno == errno.ENOSPC
        await saver.ready()
    assert names(tmp_path) == []


async def test_errors_come_at_the_end(tmp_path: Path) -> None:
    saver = Saver(Checkpoint(tmp_path / "net"), Log(), Broken())
    await saver.__aenter__()
    await saver.ready()
    saver.begin(HEADER)
    with pytest.raises(CheckpointError, match="No space left"):
        await saver.__aexit__(None, None, None)


async def test_errors_may_be_logged_alone(tmp_path: Path) -> None:
    log, system = Log(), Broken()
    settings = Checkpoint(tmp_path / "net", on_error="log")
    async with Saver(settings, log, system) as saver:
        await saver.ready()
        saver.begin(replace(HEADER, step=1))
        await saver.ready()
        system.is_full = False
        saver.begin(replace(HEADER, step=2))
    assert names(tmp_path) == ["net-0002.asyncmod"]
    assert any("goes on without" in s and "No space left" in s for s in log.lines)


async def test_a_write_is_abandoned_between_blocks(tmp_path: Path) -> None:
    system = Gated()
    settings = Checkpoint(tmp_path / "net")
    with trio.CancelScope() as scope:
        async with Saver(settings, Log(), system) as saver:
            await saver.ready()
            fill(saver, 1, 2 * BLOCK)
            saver.begin(HEADER)
            await system.reached.wait()
            system.writes.release()  # one of four, and the next one at its gate
            scope.cancel()
            trio.lowlevel.spawn_system_task(let_one_through, system)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert names(tmp_path) == []


async def let_one_through(system: Gated) -> None:
    system.writes.release()


async def test_a_write_is_finished_after_an_error(tmp_path: Path) -> None:
    """What was saved before a training failed is what it can go on from."""
    system = Gated()

    async def failing() -> None:
        async with Saver(Checkpoint(tmp_path / "net"), Log(), system) as saver:
            await saver.ready()
            fill(saver, 1, 2 * BLOCK)
            saver.begin(replace(HEADER, step=5))
            await system.reached.wait()
            trio.lowlevel.spawn_system_task(let_all_through, system)
            raise ValueError("of the training")

    with pytest.raises(ValueError, match="of the training"):
        await failing()
    assert names(tmp_path) == ["net-0005.asyncmod"]


async def let_all_through(system: Gated) -> None:
    system.let_through()


async def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "net-0007.asyncmod.0000.partial").touch()
    async with Saver(Checkpoint(tmp_path / "net"), Log()) as saver:
        await saver.ready()
        saver.begin(replace(HEADER, step=8))
    assert names(tmp_path) == ["net-0008.asyncmod"]


async def test_a_full_disk_ends_the_training_or_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = Broken()
    monkeypatch.setattr("asyncmod.module.checkpointing.Saver", broken(system))
    rows, labels = data()

    async def fit(settings: Checkpoint) -> list[int]:
        seen: list[int] = []
        async with mx.open_runtime():
            module = mx.Module(perceptron(), context=devices(1))
            await module.fit(
                mx.io.NDArrayIter(rows, labels, batch_size=4),
                num_epoch=2,
                batch_end_callback=lambda param: seen.append(param.nbatch),
                checkpoint=settings,
            )
        return seen

    with pytest.raises(CheckpointError, match="No space left"):
        await fit(Checkpoint(tmp_path / "net", every_batches=2))
    settings = Checkpoint(tmp_path / "net", every_batches=2, on_error="log")
    assert len(await fit(settings)) == 12
    assert names(tmp_path) == []


def broken(system: OperatingSystem) -> Callable[..., Saver]:
    return lambda settings, logger: Saver(settings, logger, system)


def test_the_staging_is_used_again() -> None:
    from asyncmod.checkpoint.staging import Staging

    staging = Staging()
    first = staging.array("a", (3,), "float32")
    staging.put("text", b"abc")
    staging.begin()
    assert staging.arrays == {}
    assert staging.array("a", (3,), "float32") is first
    staging.begin()
    other = staging.array("a", (4,), "float32")
    assert other.shape == (4,)
    assert list(staging.arrays) == ["a"]
    assert np.shares_memory(first, other) is False
