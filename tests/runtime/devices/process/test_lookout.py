"""A worker looks out for its next request for a moment only, and then sleeps."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from runtime.devices.process import serve
from runtime.devices.process.serve import Server
from tests.processes import processor_seconds
from tests.runtime.devices.process.test_worker_process import (
    compiled,
    open_device,
    pid_of,
)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Server]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, Server(there, 1, "reference", 0)


def test_it_ends_when_a_request_is_there(ends: tuple[socket.socket, Server]) -> None:
    here, server = ends
    here.send(b"\0")
    begin = time.monotonic()
    server._look_out(begin + 10)
    assert time.monotonic() < begin + 5


def test_it_ends_when_it_is_time(ends: tuple[socket.socket, Server]) -> None:
    _, server = ends
    end = time.monotonic() + 0.01
    server._look_out(end)
    assert time.monotonic() >= end


def test_a_worker_without_requests_sleeps() -> None:
    with closing(open_device()) as device:
        program = compiled(device)
        for _ in range(5):
            device.worker.launch([program.prepare("step")], linger=True)
            program.wait()
        pid, wall = pid_of(device), 1000 * serve._LINGER_SECONDS
        before = processor_seconds(pid)
        time.sleep(wall)
        assert processor_seconds(pid) - before < wall / 4
