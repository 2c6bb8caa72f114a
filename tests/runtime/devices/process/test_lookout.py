"""A worker looks out for its next request for a moment only, if that is worthwhile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from runtime.devices.process import lookout
from runtime.devices.process.lookout import Lookout
from tests.processes import processor_seconds
from tests.runtime.devices.process.test_worker_process import (
    compiled,
    open_device,
    pid_of,
)

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def test_it_is_worthwhile_if_the_last_request_came_in_time(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = ends
    looks: list[None] = []
    monkeypatch.setattr(lookout, "_give_way", lambda: looks.append(None))
    out = Lookout(there)
    assert not out.is_worthwhile
    monkeypatch.setattr(lookout, "SECONDS", 60.0)
    here.send(b"\0")
    out.wait()
    assert out.is_worthwhile
    there.recv(1)
    monkeypatch.setattr(lookout, "SECONDS", 1e-4)
    late = threading.Timer(0.05, here.send, [b"\0"])
    late.start()
    out.wait()  # looks, in vain, and falls asleep
    late.join()
    assert there.recv(1)
    assert looks
    assert not out.is_worthwhile
    looks.clear()
    late = threading.Timer(0.05, here.send, [b"\0"])
    late.start()
    out.wait()
    late.join()
    assert not looks


def test_it_ends_when_the_other_side_closes(ends: Ends) -> None:
    here, there = ends
    here.close()
    Lookout(there).wait()
    assert there.recv(1) == b""


def test_a_worker_without_requests_sleeps() -> None:
    with closing(open_device()) as device:
        program = compiled(device)
        for _ in range(5):
            device.worker.launch([program.prepare("step")], linger=True)
            program.wait()
        pid, wall = pid_of(device), 0.5
        before = processor_seconds(pid)
        time.sleep(wall)
        assert processor_seconds(pid) - before < wall / 4
