"""What the machine, or the container that this process is in, has left of memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """The files of this process's control group, of either version of them."""

    limit: Path
    used: Path
    events: Path

    @classmethod
    def here(cls) -> ControlGroup | None:
        """The one that bounds memory; None where there is none."""
        for line in _read(Path("/proc/self/cgroup")).splitlines():
            number, controllers, path = line.split(":", 2)
            path = path.lstrip("/")
            if "memory" in controllers.split(","):
                group = _inside("memory", path)
                files = "limit_in_bytes", "usage_in_bytes", "oom_control"
                return cls(*(group / f"memory.{name}" for name in files))
            if number == "0" and (_GROUPS / path / "memory.current").exists():
                files = "max", "current", "events"
                return cls(*(_GROUPS / path / f"memory.{name}" for name in files))
        return None


def available_memory() -> int:
    """Bytes that can still be had without anybody being killed for it."""
    available = _machine()
    group = ControlGroup.here()
    if group is not None:
        limit, used = _read(group.limit), _read(group.used)
        if limit.isdigit() and used.isdigit():
            available = min(available, max(int(limit) - int(used), 0))
    return available


def commits_strictly() -> bool:
    """Whether the kernel refuses memory that was promised and is not touched yet."""
    return _read(Path("/proc/sys/vm/overcommit_memory")) == "2"


def oom_kills() -> int:
    """Processes of this control group that were killed for want of memory so far.

    0 where that is not known.
    """
    group = ControlGroup.here()
    events = "" if group is None else _read(group.events)
    counts = dict(line.split(None, 1) for line in events.splitlines())
    return int(counts.get("oom_kill", 0))


def _machine() -> int:
    for line in _read(Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return 1024 * int(value.split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _inside(controller: str, path: str) -> Path:
    """A group's folder; in a container its path may be the host's."""
    group = _GROUPS / controller / path
    return group if group.exists() else _GROUPS / controller


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
