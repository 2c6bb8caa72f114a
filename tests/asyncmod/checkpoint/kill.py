"""Kill trainings, start them again, and compare; a program of its own.

`python -m tests.asyncmod.checkpoint.kill FOLDER` runs every scenario undisturbed, and
then, in children that it forks, killed by SIGKILL: after its k-th batch for every k,
or for some with `--every`, or with `--random N` at N random instants. What was killed
is started again like the first time, with `resume="auto"`, until it gets to its end.
Prints as JSON, for each scenario, how many were killed, how many starts that took, and
what differed from the undisturbed one: parameters, or the data of a batch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import threading
import time
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import trio

from tests.asyncmod.checkpoint.scenarios import SCENARIOS, train

# What a training imports when it begins, imported once instead of in every child.
for _module in ("asyncmod.module", "asyncmod.optimizer", "runtime.executor.binding"):
    import_module(_module)

Batches = dict[tuple[int, int], int]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    results = {}
    for name in options.scenario or SCENARIOS:
        results[name] = interrupt(name, options.folder, options.every, options.random)
    print(json.dumps(results))


def interrupt(name: str, folder: Path, every: int, at_random: int) -> dict[str, Any]:
    """Kill one scenario again and again."""
    began = time.monotonic()
    expected = start(name, folder / "undisturbed", None, 0.0)
    seconds = time.monotonic() - began
    assert expected is not None
    parameters, batches = expected
    draw = random.Random(len(name))
    killed = starts = 0
    differing = []
    for k in range(1, (at_random or len(batches)) + 1, 1 if at_random else every):
        place = folder / f"{k}"
        place.mkdir()
        moment = draw.uniform(0.3, 1) * seconds
        got = start(name, place, None if at_random else k, moment if at_random else 0.0)
        killed += got is None
        starts += 1
        while got is None:
            got = start(name, place, None, 0.0)
            starts += 1
        differing += [f"{k}: {n}" for n in parameters if differ(got[0], parameters, n)]
        if got[1] != batches:
            differing.append(f"{k}: batches")
        shutil.rmtree(place)
    shutil.rmtree(folder / "undisturbed")
    return {"killed": killed, "starts": starts, "differing": differing}


def differ(got: dict[str, Any], expected: dict[str, Any], name: str) -> bool:
    return got[name].tobytes() != expected[name].tobytes()


def start(
    name: str, folder: Path, kill_at: int | None, kill_after: float
) -> tuple[dict[str, Any], Batches] | None:
    """Run a training in a child; its parameters and batches, or None if it was killed.

    The batches are those of all starts in this folder.
    """
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        if kill_after:
            kill = threading.Timer(kill_after, os.kill, (os.getpid(), signal.SIGKILL))
            kill.daemon = True
            kill.start()
        run(name, folder, kill_at)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGKILL:
        return None
    if code:
        raise SystemExit(f"{name} ended with {code}")
    lines = (folder / "batches").read_text().splitlines()
    batches = {(int(a), int(b)): int(c) for a, b, c in map(str.split, lines)}
    with np.load(folder / "result.npz") as result:
        return dict(result), batches


def run(name: str, folder: Path, kill_at: int | None) -> None:
    """What the child does."""
    log = os.open(folder / "batches", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    options = {"checkpoint": folder / "net", "checkpoint_every": 1, "resume": "auto"}
    try:
        parameters = trio.run(
            lambda: train(name, recorder(log, kill_at), **options)  # type: ignore[arg-type]
        )
        np.savez(folder / "result.npz", **parameters)
    except BaseException as error:
        print(f"{name}: {error!r}", flush=True)
        os._exit(1)


def recorder(log: int, kill_at: int | None) -> Callable[[Any], None]:
    """A callback that notes the data of each batch, and kills after the k-th."""
    count = 0

    def record(param: Any) -> None:
        nonlocal count
        count += 1
        data = param.locals["data_batch"].data[0]
        dense = data if isinstance(data, np.ndarray) else data.toarray()
        checksum = zlib.crc32(np.ascontiguousarray(dense))
        line = f"{param.epoch} {param.nbatch} {checksum}\n"
        os.write(log, line.encode())
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return record


if __name__ == "__main__":
    main()
