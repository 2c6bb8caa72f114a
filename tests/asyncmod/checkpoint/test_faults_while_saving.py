"""Saving on a disk that is full, in a folder that is locked, in a process that dies."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asyncmod.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from asyncmod.checkpoint.file_system import OPERATING_SYSTEM, OperatingSystem
from asyncmod.checkpoint.layout import BLOCK
from asyncmod.checkpoint.replacing import remove_abandoned
from tests.asyncmod.checkpoint.faulty_system import FaultySystem
from tests.asyncmod.checkpoint.samples import HEADER, assert_equal

SMALL = {"a": np.arange(10.0)}
LARGE = {"a": np.zeros(BLOCK + 9, np.uint8), "b": np.ones(BLOCK, np.uint8)}
CLOSE = 9
"""Which call of a save of LARGE closes the file."""
NEWER = replace(HEADER, step=7)


def fails(path: Path, code: int, system: OperatingSystem = OPERATING_SYSTEM) -> None:
    """Assert that saving LARGE fails with this code and leaves all as it was."""
    with pytest.raises(CheckpointError, match="cannot save") as caught:
        write_checkpoint(path, NEWER, LARGE, system=system)
    assert caught.value.errno == code
    assert isinstance(caught.value, OSError)
    assert os.strerror(code) in str(caught.value)
    assert str(path) in str(caught.value)
    file = open_checkpoint(path)
    assert_equal(file, HEADER, SMALL)
    file.close()
    assert os.listdir(path.parent) == [path.name]


def test_a_process_that_dies_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.asyncmod.checkpoint.crash", str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    crashes = json.loads(process.stdout)
    assert len(crashes) == 6 * 2 + 5 * 3  # five writes, and six other calls
    for call, when, step, whole, others, removed, left in crashes:
        at = f"{when} {call}"
        renamed = at in ("after rename", "before sync_folder", "after sync_folder")
        assert (step, whole) == (2 if renamed else 1, True), at
        partial = not renamed and at != "before create"
        assert (others, removed, left) == (partial, partial, 0), at


@pytest.mark.parametrize("n", range(1, 12))
def test_whatever_call_fails_the_old_file_stays(tmp_path: Path, n: int) -> None:
    path = tmp_path / "net-0001.asyncmod"
    write_checkpoint(path, HEADER, SMALL)

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    system = FaultySystem(n, "after" if n == CLOSE else "before", fail)
    with pytest.raises(CheckpointError, match="cannot save") as caught:
        write_checkpoint(path, NEWER, LARGE, system=system)
    assert caught.value.errno == errno.EIO
    assert os.listdir(tmp_path) == [path.name]
    # Once renamed, the new one is there, though perhaps not on the disk.
    step = open_checkpoint(path).header.step
    assert step == (7 if system.called[n - 1] == "sync_folder" else HEADER.step)


def test_writes_may_be_short(tmp_path: Path) -> None:
    class Short(OperatingSystem):
        def write(self, descriptor: int, data: memoryview, offset: int) -> int:
            return super().write(descriptor, data[:99_999], offset)

    path = tmp_path / "net-0001.asyncmod"
    write_checkpoint(path, HEADER, LARGE, system=Short())
    assert_equal(open_checkpoint(path), HEADER, LARGE)


def test_a_full_device(tmp_path: Path) -> None:
    path = tmp_path / "net-0001.asyncmod"
    write_checkpoint(path, HEADER, SMALL)

    class Full(OperatingSystem):
        def write(self, descriptor: int, data: memoryview, offset: int) -> int:
            with open("/dev/full", "wb", buffering=0) as full:
                return full.write(data)

    fails(path, errno.ENOSPC, Full())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("reserves", [True, False])
def test_a_full_disk(small_disk: Path, reserves: bool) -> None:
    class Sparse(OperatingSystem):
        def allocate(self, descriptor: int, size: int) -> None:
            os.ftruncate(descriptor, size)

    path = small_disk / "net-0001.asyncmod"
    write_checkpoint(path, HEADER, SMALL)
    fails(path, errno.ENOSPC, OPERATING_SYSTEM if reserves else Sparse())


def test_a_file_larger_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "net-0001.asyncmod"
    write_checkpoint(path, HEADER, SMALL)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK, hard))
    try:
        fails(path, errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "net-0001.asyncmod"
    write_checkpoint(path, HEADER, SMALL)
    with read_only(tmp_path) as code:
        fails(path, code)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[int]:
    """Make a folder read-only; root needs a mount for that."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield errno.EACCES
        folder.chmod(0o700)
        return
    for options in (["--bind", str(folder)], ["-o", "remount,ro,bind"]):
        if subprocess.run(["mount", *options, str(folder)]).returncode:
            pytest.skip("nothing can be mounted here")
    try:
        yield errno.EROFS
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file") as caught:
        write_checkpoint(tmp_path / "none" / "net-0001.asyncmod", HEADER, SMALL)
    assert caught.value.errno == errno.ENOENT


def test_a_file_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    descriptor = OPERATING_SYSTEM.create(str(tmp_path / "net-0001.asyncmod.ab.partial"))
    (tmp_path / "net-0002.asyncmod.cd.partial").touch()
    (tmp_path / "other-0002.asyncmod.cd.partial").touch()
    try:
        removed = remove_abandoned(str(tmp_path / "net"))
    finally:
        os.close(descriptor)
    assert removed == [str(tmp_path / "net-0002.asyncmod.cd.partial")]
    assert sorted(os.listdir(tmp_path)) == [
        "net-0001.asyncmod.ab.partial",
        "other-0002.asyncmod.cd.partial",
    ]
