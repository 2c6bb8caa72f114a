"""Faults at random against trainings: `python -m tests.faults.soak --minutes 60`.

Each round starts the same training in a program of its own, and injects faults until it
ends: kills or stops a worker, kills or ends the program and starts it again, fills the
disk of the checkpoints, damages the newest checkpoint. At the end of a round parameters
and batches must be those of a training on threads that nobody disturbed, and no worker
may be left. Prints a line per round, and at the end all counts as JSON.

Run it from the project's folder, as root for the full disk; not a test that pytest
collects.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from asyncmod.checkpoint import saved_files
from tests.faults.disk import full, small_disk
from tests.faults.training import Arrays, Batches, differing, recorded
from tests.processes import alive, children, wait_until

HEARTBEAT = 2.0
STALLED = 300.0  # seconds without a batch after which the soak fails
# Exit codes of what was ended here: by SIGTERM in good order, or before it listened.
ENDED = (-signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument("--epochs", type=int, default=60, help="of each training")
    parser.add_argument("--pause", type=float, default=1.5, help="mean, between faults")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    counts: Counter[str] = Counter()
    failed = 0
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        checkpoints = folder / "checkpoints"
        has_disk = stack.enter_context(small_disk(checkpoints))
        if not has_disk:
            print("no small disk can be mounted here: it will not be filled")
        expected = undisturbed(folder / "undisturbed", options.epochs)
        end = time.monotonic() + 60 * options.minutes
        rounds = 0
        while time.monotonic() < end:
            rounds += 1
            here = folder / f"round {rounds}"
            here.mkdir()
            round_ = Round(here, checkpoints, options.epochs, draw, has_disk)
            wrong = round_.run(options.pause)
            wrong += compare(here, expected)
            counts += round_.counts
            failed += bool(wrong)
            told = ", ".join(f"{k} {n}" for k, n in sorted(round_.counts.items()))
            print(f"round {rounds}: {told}: {wrong or 'equal'}", flush=True)
            shutil.rmtree(here)
            for path in checkpoints.iterdir():
                path.unlink()
    faults = sum(n for kind, n in counts.items() if kind != "start")
    print(json.dumps({"rounds": rounds, "failed": failed, "faults": faults, **counts}))
    return int(failed > 0)


def undisturbed(folder: Path, epochs: int) -> tuple[Arrays, Batches]:
    """The result of the training on threads, without checkpoints."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.faults.training", str(folder)]
    options = ["--worker", "thread", "--epochs", str(epochs)]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return result(folder)


def result(folder: Path) -> tuple[Arrays, Batches]:
    with np.load(folder / "result.npz") as file:
        return dict(file), recorded(folder / "batches")


def compare(folder: Path, expected: tuple[Arrays, Batches]) -> list[str]:
    """What differs from the undisturbed training, in words."""
    try:
        arrays, batches = result(folder)
    except (OSError, ValueError) as error:
        return [repr(error)]
    wrong = [f"`{name}` differs" for name in differing(arrays, expected[0])]
    if batches != expected[1]:
        wrong.append(f"{len(batches)} batches instead of {len(expected[1])}")
    return wrong


class Round:
    """One training, started again until it ends by itself.

    Attributes:
        counts: Of each fault, and of the starts.
    """

    def __init__(
        self,
        folder: Path,
        checkpoints: Path,
        epochs: int,
        draw: random.Random,
        has_disk: bool,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._checkpoints = checkpoints
        self._draw = draw
        self._command = [
            *(sys.executable, "-m", "tests.faults.training", str(folder)),
            *("--checkpoints", str(checkpoints), "--epochs", str(epochs)),
            *("--heartbeat", str(HEARTBEAT)),
        ]
        self._workers: set[int] = set()
        self._faults: list[Callable[[int], bool]] = [
            *3 * [self._kill_worker],
            self._stop_worker,
            self._kill_program,
            self._end_program,
            self._damage_newest,
            *([self._fill_disk] if has_disk else []),
        ]

    def run(self, pause: float) -> list[str]:
        """Inject faults until the training has ended; what went wrong, in words."""
        while True:
            self.counts["start"] += 1
            with open(self._folder / "log", "ab") as log:
                program = subprocess.Popen(self._command, stdout=log, stderr=log)
            code = self._disturb(program, pause)
            wrong = self._left_behind()
            if code is None:
                wrong.append(f"no batch for {STALLED} s")
            elif code not in (0, *ENDED):
                wrong.append(f"exit code {code}")
            if wrong:
                wrong += (self._folder / "log").read_text().splitlines()[-30:]
            if wrong or code == 0:
                return wrong

    def _disturb(self, program: subprocess.Popen[bytes], pause: float) -> int | None:
        """Inject faults into a program until it ends; None if it does no more."""
        size, since = 0, time.monotonic()
        while True:
            with suppress(subprocess.TimeoutExpired):
                return program.wait(self._draw.expovariate(1 / pause))
            self._workers.update(children(program.pid))
            log = self._folder / "batches"
            if log.exists() and log.stat().st_size != size:
                size, since = log.stat().st_size, time.monotonic()
            elif time.monotonic() - since > STALLED:
                program.kill()
                program.wait()
                return None
            fault = self._draw.choice(self._faults)
            if fault(program.pid):
                self.counts[fault.__name__.strip("_").replace("_", " ")] += 1

    def _left_behind(self) -> list[str]:
        """Workers that outlive the program by more than ten times 100 ms."""
        if wait_until(lambda: not any(map(alive, self._workers)), 1.0) is None:
            return [f"workers are left: {sorted(filter(alive, self._workers))}"]
        return []

    def _kill_worker(self, program: int) -> bool:
        return self._signal_worker(program, signal.SIGKILL)

    def _stop_worker(self, program: int) -> bool:
        return self._signal_worker(program, signal.SIGSTOP)

    def _signal_worker(self, program: int, number: int) -> bool:
        workers = children(program)
        if not workers:
            return False
        with suppress(ProcessLookupError):
            os.kill(self._draw.choice(workers), number)
        return True

    def _kill_program(self, program: int) -> bool:
        os.kill(program, signal.SIGKILL)
        return True

    def _end_program(self, program: int) -> bool:
        os.kill(program, signal.SIGTERM)
        return True

    def _damage_newest(self, program: int) -> bool:
        """Damage the newest file, and have the program need it."""
        files = saved_files(self._checkpoints / "net")
        if len(files) < 2:
            return False
        os.kill(program, signal.SIGSTOP)  # no newer one comes meanwhile
        path = Path(saved_files(self._checkpoints / "net")[-1].path)
        content = bytearray(path.read_bytes())
        if self._draw.random() < 0.5:
            del content[self._draw.randrange(len(content)) :]
        else:
            content[self._draw.randrange(len(content))] ^= 1 << self._draw.randrange(8)
        path.write_bytes(content)
        os.kill(program, signal.SIGKILL)
        return True

    def _fill_disk(self, program: int) -> bool:
        with full(self._checkpoints):
            wait_until(lambda: not alive(program), self._draw.uniform(0.1, 1.0))
        return True


if __name__ == "__main__":
    sys.exit(main())
