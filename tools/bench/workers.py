"""What worker processes cost over threads, and how fast they are told of a death.

    python3 tools/run.py tools/bench/workers.py --workloads W1_256,W2,W3_64 --seconds 20

Steps of a module on threads and of one on processes alternate in one process, so that
whatever disturbs the machine meets both. One JSON line per measurement, milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, closing
from typing import Any

import numpy as np
from ours import ready_module

import asyncmod as mx
from runtime.devices.contract import Program
from runtime.devices.factory import create_device
from runtime.devices.process.device import ProcessDevice
from runtime.graph.plan import DefinitionRow, Layout, Plan

PERCENTILES = (0, 10, 50, 90, 99)


async def steps(workload: str, devices: int, seconds: float) -> None:
    """Training steps, by turns."""
    workers = ("thread", "process")
    taken: dict[str, list[float]] = {worker: [] for worker in workers}
    async with AsyncExitStack() as opened:
        modules = {
            w: await opened.enter_async_context(ready_module(workload, devices, w))
            for w in workers
        }
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for worker, (mod, batch) in modules.items():
                await mod.step(batch)  # into the caches, what the other one drove out
                for _ in range(4):
                    begin = time.perf_counter()
                    await mod.step(batch)
                    taken[worker].append(time.perf_counter() - begin)
    for worker, times in taken.items():
        report(f"{workload} on {devices}, {worker}", times)
    ratios = np.divide(*(np.percentile(taken[w], PERCENTILES) for w in reversed(taken)))
    print(json.dumps({"what": f"{workload} ratio", **named(ratios)}), flush=True)


def open_program() -> tuple[ProcessDevice, Program]:
    """A worker, and a program that does nearly nothing."""
    layout = Layout.pack("input", [("x", (1,), "float32")])
    row = DefinitionRow("0", False, "zero", 0, {}, False, (), (layout.tensors["x"],))
    plan = Plan(
        {"input": layout.nbytes}, {"input": layout.tensors}, {"predict": (row,)}
    )
    device = create_device("reference", worker="process")
    assert isinstance(device, ProcessDevice)
    return device, device.compile(plan)


def round_trips(count: int = 5000) -> None:
    """Launches of almost nothing, one after the other."""
    device, program = open_program()
    with closing(device):
        times = []
        for _ in range(count):
            begin = time.perf_counter()
            program.launch("predict")
            program.wait()
            times.append(time.perf_counter() - begin)
    report("round trip", times)


def deaths(count: int = 30) -> None:
    """From the kill of a worker that has stopped in a step until that is raised."""
    starts, seen = [], []
    for _ in range(count):
        begin = time.perf_counter()
        device, program = open_program()
        starts.append(time.perf_counter() - begin)
        device = device.under("fail")
        with closing(device):
            program = device.compile(program.plan)
            assert device.worker.process is not None
            seen.append(kill(program, device.worker.process.pid))
    report("start", starts)
    report("death seen", seen)


def kill(program: Program, pid: int) -> float:
    killed: list[float] = []

    def end() -> None:
        time.sleep(0.05)  # until the launch waits
        killed.append(time.perf_counter())
        os.kill(pid, signal.SIGKILL)

    os.kill(pid, signal.SIGSTOP)
    killer = threading.Thread(target=end)
    killer.start()
    try:
        program.launch("predict")
        program.wait()
    except mx.errors.WorkerDied:
        return time.perf_counter() - killed[0]
    finally:
        killer.join()
    raise AssertionError("it has not died")


def report(what: str, seconds: list[float]) -> None:
    values = 1e3 * np.percentile(seconds, PERCENTILES)
    line = {"what": what, "count": len(seconds), **named(values)}
    print(json.dumps(line), flush=True)


def named(values: Any) -> Mapping[str, float]:
    return {
        f"p{p}": round(float(v), 4) for p, v in zip(PERCENTILES, values, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default="W1_256,W2,W3_64")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    round_trips()
    deaths()
    for workload in filter(None, arguments.workloads.split(",")):
        mx.run(steps, workload, arguments.devices, arguments.seconds)


if __name__ == "__main__":
    main()
