"""Open mutated checkpoint files: `python -m tests.fuzz_checkpoint --count 1000000`.

Nothing but CheckpointError may be raised, no damage may pass, and memory stays bounded.
Run it from the project's folder; not a test that pytest collects.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import tempfile
import time
from pathlib import Path

from tests.asyncmod.checkpoint.mutations import load, mutated
from tests.asyncmod.checkpoint.samples import GOLDEN, GOLDEN_FILES

MEMORY = 64 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs")
    parser.add_argument("--seed", type=int, default=0, help="first input's number")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="time limit"
    )
    options = parser.parse_args()
    originals = [(GOLDEN / name).read_bytes() for name in GOLDEN_FILES]
    began = time.monotonic()
    base = peak_memory()
    done = accepted = 0
    slowest = 0.0
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{os.getpid()}-") as name:
        path = Path(name) / "mutated.asyncmod"
        for seed in range(options.seed, options.seed + options.count):
            random_ = random.Random(seed)
            original = random_.choice(originals)
            content = mutated(original, random_)
            path.write_bytes(content)
            opened = time.monotonic()
            try:
                accepted += load(path, original, content)
            except BaseException:
                print(f"input {seed} was not refused as it should be")
                raise
            now = time.monotonic()
            slowest = max(slowest, now - opened)
            done += 1
            if now - began > options.seconds:
                break
    grown = peak_memory() - base
    print(
        f"{done} inputs, {accepted} of them valid, {time.monotonic() - began:.0f} s; "
        f"slowest {1e3 * slowest:.1f} ms; memory grew by {grown / 2**20:.1f} MiB"
    )
    if grown > MEMORY:
        raise SystemExit(f"memory must not grow by more than {MEMORY >> 20} MiB")


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
