"""A program that trains in worker processes is ended: nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asyncmod.checkpoint import latest
from tests.faults.training import recorded
from tests.processes import alive, all_shared_files, children, shared_files, wait_until
from tests.timing import RUNS, check_fast

SECONDS = 60.0


@contextmanager
def training(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A training in a process group of its own that has applied some batches."""
    options = [str(folder), "--checkpoints", str(folder), "--epochs", "10000", *more]
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.training", *options],
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    log = folder / "batches"
    try:
        begun = wait_until(lambda: log.exists() and log.stat().st_size > 100, SECONDS)
        assert begun is not None, program.communicate(timeout=1)
        yield program
    finally:
        program.kill()
        program.communicate()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_stopped_in_good_order(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with training(tmp_path) as program:
        workers = children(program.pid)
        assert len(workers) == 2
        # As a terminal does it: to the whole group. The workers are in none of them.
        os.killpg(program.pid, number)
        _, errors = program.communicate(timeout=SECONDS)
        assert program.returncode == code, errors
        assert wait_until(lambda: not any(map(alive, workers)), 1.0) is not None
    assert "takes over" not in errors
    file = latest(tmp_path / "net")
    assert file is not None
    assert file.header.step == len(recorded(tmp_path / "batches"))
    file.close()


def test_suspended_and_continued(tmp_path: Path) -> None:
    """As a laptop does it: nobody gave a sign of life, and nobody could look."""
    with training(tmp_path, "--heartbeat", "0.5") as program:
        workers = children(program.pid)
        for pid in (program.pid, *workers):
            os.kill(pid, signal.SIGSTOP)
        assert wait_until(lambda: False, 1.5) is None
        for pid in (program.pid, *workers):
            os.kill(pid, signal.SIGCONT)
        log = tmp_path / "batches"
        size = log.stat().st_size
        assert wait_until(lambda: log.stat().st_size > size, SECONDS) is not None
        assert children(program.pid) == workers
        program.terminate()
        _, errors = program.communicate(timeout=SECONDS)
    assert "takes over" not in errors


def test_killed(tmp_path: Path) -> None:
    folders = (tmp_path / str(run) for run in range(RUNS))

    def measure() -> float:
        folder = next(folders)
        folder.mkdir()
        with training(folder) as program:
            workers = children(program.pid)
            files = {inode for pid in workers for inode in shared_files(pid)}
            assert len(workers) == 2
            assert files <= shared_files(program.pid)
            assert files
            program.kill()
            dead = wait_until(lambda: not any(map(alive, workers)), SECONDS)
            free = wait_until(lambda: not files & all_shared_files(), SECONDS)
            assert dead is not None
            assert free is not None
            return max(dead, free)

    check_fast(measure, 1.0)  # ten times the bound
