"""What a test may leave behind: threads, processes, descriptors, shared memory.

`Resources.now()` is a snapshot; `now.beyond(before)` says in words what was not
there before. Trio's own tasks end with `trio.run`, so they need no look.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TypeVar

Key = TypeVar("Key")
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Resources:
    """What this process holds; each maps something comparable to its description."""

    threads: Mapping[int, str]
    processes: Mapping[int, str]
    descriptors: Mapping[tuple[int, str], str]
    shared_memory: Mapping[str, str]

    @staticmethod
    def now() -> Resources:
        return Resources(threads(), processes(), descriptors(), shared_memory())

    def beyond(self, before: Resources) -> list[str]:
        """One line for everything that is here and was not there `before`."""
        left = [
            *new(self.threads, before.threads),
            *new(self.processes, before.processes),
            *new(self.descriptors, before.descriptors),
        ]
        names = self.shared_memory.keys() - before.shared_memory.keys()
        left += (self.shared_memory[name] for name in sorted(names) if is_ours(name))
        return left


def new(now: Mapping[Key, str], before: Mapping[Key, str]) -> Iterable[str]:
    return (text for key, text in now.items() if key not in before)


def threads() -> dict[int, str]:
    """Python's threads, but for those that Trio keeps for ten idle seconds."""
    return {
        thread.ident: f"thread {thread.name!r} (daemon: {thread.daemon})"
        for thread in threading.enumerate()
        if thread.ident is not None and not thread.name.startswith("Trio thread")
    }


def processes() -> dict[int, str]:
    """Child processes, ended ones that nobody waited for included."""
    found = {}
    for children in Path("/proc/self/task").glob("*/children"):
        for text in read(children).split():
            pid = int(text)
            if pid != getattr(resource_tracker._resource_tracker, "_pid", None):
                found[pid] = f"process {pid} ({describe(pid)})"
    return found


def describe(pid: int) -> str:
    """The command line of a process, or that it has ended."""
    state = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].strip()
    if state.startswith("Z"):
        return "ended, not waited for"
    return read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()


def descriptors() -> dict[tuple[int, str], str]:
    found = {}
    tracker = getattr(resource_tracker._resource_tracker, "_fd", None)
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor of the listing itself
            continue
        if int(name) != tracker:
            found[int(name), target] = f"file descriptor {name} ({target})"
    return found


def shared_memory() -> dict[str, str]:
    try:
        names = os.listdir(SHARED_MEMORY)
    except FileNotFoundError:
        return {}
    return {name: f"shared memory {SHARED_MEMORY / name}" for name in names}


def is_ours(name: str) -> bool:
    """Whether the entry is not another user's, nor of an unrelated process.

    Tests that run beside these name what they make after their process.
    """
    path = SHARED_MEMORY / name
    maker = name.partition("-")[0]
    if maker.isdecimal() and int(maker) != os.getpid():
        return False
    try:
        if path.stat().st_uid != os.getuid():
            return False
    except FileNotFoundError:
        return False
    family = {os.getpid(), *processes()}
    return not any(
        str(path) in read(maps)
        for maps in Path("/proc").glob("[0-9]*/maps")
        if int(maps.parent.name) not in family
    )


def read(path: Path) -> str:
    """The text of a file under /proc; empty if its process has gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
