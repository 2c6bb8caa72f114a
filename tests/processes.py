"""What Linux tells of other processes: if they live, their children, their memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.leaks import read


def alive(pid: int) -> bool:
    """Whether a process runs, or is stopped; not if it has ended unwaited for."""
    status = read(Path(f"/proc/{pid}/status"))
    return bool(status) and "\nState:\tZ" not in status


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in lists for child in read(path).split()]


def shared_files(pid: int) -> set[int]:
    """The inodes of asyncmod's nameless files that a process maps or has open."""
    found = {
        int(line.split()[4])
        for line in read(Path(f"/proc/{pid}/maps")).splitlines()
        if "/memfd:asyncmod" in line
    }
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            if "/memfd:asyncmod" in os.readlink(descriptor):
                found.add(descriptor.stat().st_ino)
        except OSError:  # closed meanwhile
            continue
    return found


def shared_bytes() -> int:
    """Bytes that asyncmod's nameless files have of memory, as far as open here."""
    sizes: dict[int, int] = {}
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            if "/memfd:asyncmod" in os.readlink(descriptor):
                status = descriptor.stat()
                sizes[status.st_ino] = 512 * status.st_blocks
        except OSError:  # closed meanwhile
            continue
    return sum(sizes.values())


def processor_seconds(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def private_bytes(pid: int) -> int:
    """Bytes that a process has of memory that belongs to no file."""
    lines = read(Path(f"/proc/{pid}/status")).splitlines()
    kilobytes = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return 1024 * int(kilobytes[0]) if kilobytes else 0


def all_shared_files() -> set[int]:
    """The same of all processes that may be looked into."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return {inode for pid in pids for inode in shared_files(pid)}


def wait_until(condition: Callable[[], bool], seconds: float) -> float | None:
    """How long it took until something held; None if it did not in time."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            return None
        time.sleep(0.0005)
    return time.monotonic() - began
