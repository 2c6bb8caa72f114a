"""What is left of memory: of the machine, or of the group that a container is."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.transport import machine
from runtime.transport.machine import ControlGroup, available_memory, oom_kills


@pytest.fixture(params=["version 1", "version 2"])
def group(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ControlGroup:
    names = {
        "version 1": ("limit_in_bytes", "usage_in_bytes", "oom_control"),
        "version 2": ("max", "current", "events"),
    }[request.param]
    found = ControlGroup(*(tmp_path / f"memory.{name}" for name in names))
    found.limit.write_text("1000\n")
    found.used.write_text("300\n")
    found.events.write_text("under_oom 0\noom_kill 4\n")
    monkeypatch.setattr(ControlGroup, "here", lambda: found)
    return found


def test_the_group_bounds_what_can_be_had(group: ControlGroup) -> None:
    assert available_memory() == 700
    assert oom_kills() == 4
    group.used.write_text("1001")
    assert available_memory() == 0


def test_a_group_without_a_limit(group: ControlGroup) -> None:
    group.limit.write_text("max")
    assert available_memory() == pytest.approx(machine._machine(), rel=0.2)
    group.events.unlink()
    assert oom_kills() == 0


def test_this_machine() -> None:
    assert available_memory() > 1 << 20
    assert oom_kills() >= 0
