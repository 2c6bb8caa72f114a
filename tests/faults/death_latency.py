"""How long a death goes unnoticed: `python -m tests.faults.death_latency --kills 200`.

Kills a worker process within a step, again and again, and prints the distribution of
the times from the signal until the kernel tells a thread that does nothing but wait for
it, and until `WorkerDied` is raised where the step is waited for; then that of the time
until the workers of a program have gone when the program is killed. Run it from the
project's folder; not a test that pytest collects.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from runtime.devices.contract import Program
from runtime.devices.factory import create_device
from runtime.devices.process.device import ProcessDevice
from runtime.errors import WorkerDied
from tests.conformance.nets import mlp
from tests.processes import alive, children, wait_until


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of a worker")
    parser.add_argument("--programs", type=int, default=20, help="killed as a whole")
    options = parser.parse_args()
    device = create_device("cpu", worker="process")
    assert isinstance(device, ProcessDevice)
    with closing(device.under("fail")) as failing:
        net = mlp()
        program = net.compile(failing, True)
        net.load(program)
        deaths = [unnoticed(failing, program) for _ in range(options.kills)]
    told, raised = zip(*deaths, strict=True)
    print(json.dumps({"the kernel tells of a death after, ms": distribution(told)}))
    print(json.dumps({"it is raised after, ms": distribution(raised)}))
    orphans = [outlived() for _ in range(options.programs)]
    print(json.dumps({"workers outlive a program by, ms": distribution(orphans)}))


def unnoticed(device: ProcessDevice, program: Program) -> tuple[float, float]:
    """Kill the worker while it runs steps; seconds until it is told, and raised."""
    program_runs(program)  # a worker that lives
    assert device.worker.process is not None
    pid = device.worker.process.pid
    fd = os.pidfd_open(pid)
    moments = []

    def kill() -> None:
        poll = select.poll()
        poll.register(fd)
        moments.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)
        poll.poll()
        moments.append(time.monotonic())

    timer = threading.Timer(0.02, kill)
    timer.start()
    try:
        while True:
            program_runs(program)
    except WorkerDied:
        seen = time.monotonic()
    timer.join()
    os.close(fd)
    killed, told = moments
    return told - killed, seen - killed


def program_runs(program: Program) -> None:
    program.launch("step")
    program.wait()


def outlived() -> float:
    """Kill a program that trains; seconds until its workers have gone."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "tests.faults.training", name]
        program = subprocess.Popen([*command, "--epochs", "10000"])
        log = Path(name) / "batches"
        wait_until(lambda: log.exists() and log.stat().st_size > 100, 60)
        workers = children(program.pid)
        program.kill()
        seconds = wait_until(lambda: not any(map(alive, workers)), 10)
        program.wait()
    assert seconds is not None
    return seconds


def distribution(seconds: Sequence[float]) -> dict[str, float]:
    points = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    found = {
        name: round(1000 * float(np.percentile(seconds, point)), 2)
        for name, point in points.items()
    }
    return {"count": len(seconds), **found}


if __name__ == "__main__":
    main()
