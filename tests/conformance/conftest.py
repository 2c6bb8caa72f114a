"""The devices that the suite is run over; worker processes are started once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from runtime.devices.contract import Device
from runtime.devices.factory import create_device
from runtime.devices.process.device import ProcessDevice

KINDS = ("reference", "cpu", "simulated", "reference process", "cpu process")


@pytest.fixture(scope="package", autouse=True)
def processes() -> Iterator[dict[str, ProcessDevice]]:
    """One device with a worker process of each kind that has one."""
    with ExitStack() as stack:
        devices = {}
        for kind in ("reference", "cpu"):
            device = create_device(kind, worker="process")
            assert isinstance(device, ProcessDevice)
            devices[kind] = stack.enter_context(closing(device))
            device.start()
        yield devices


@pytest.fixture(params=KINDS)
def device(
    request: pytest.FixtureRequest, processes: dict[str, ProcessDevice]
) -> Iterator[Device]:
    kind, _, worker = request.param.partition(" ")
    if not worker:
        yield create_device(kind)
        return
    shared = processes[kind]
    yield shared
    for program in shared.worker.programs:
        program.close()
