"""Kill a process at every call it makes while it saves; a program of its own.

`python -m tests.asyncmod.checkpoint.crash FOLDER` saves one checkpoint in FOLDER, then
forks a child for each call and each moment of it, which saves another one over it and
ends there by `os._exit`. Prints, as JSON, for each child: the call, what the file holds
afterwards (the `step` of its header), and what else is in the folder.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from asyncmod.checkpoint import layout, open_checkpoint, write_checkpoint
from asyncmod.checkpoint.replacing import remove_abandoned
from tests.asyncmod.checkpoint.faulty_system import FaultySystem, When
from tests.asyncmod.checkpoint.samples import HEADER

OLD, NEW = replace(HEADER, step=1), replace(HEADER, step=2)
TENSORS = {
    name: np.full(size, step, np.uint8)
    for step, (name, size) in enumerate([("a", 10), ("b", 5000), ("c", 0)])
}
CRASHED = 77
layout.BLOCK = 4096  # two blocks of few bytes
BESIDE: tuple[When, ...] = ("before", "after")
WRITING: tuple[When, ...] = ("before", "within", "after")


def main(folder: Path) -> None:
    path = folder / "net-0001.asyncmod"
    undisturbed = FaultySystem(0, "before", lambda: None)
    write_checkpoint(path, OLD, TENSORS, system=undisturbed)
    results = []
    for n, call in enumerate(undisturbed.called, start=1):
        for when in WRITING if call == "write" else BESIDE:
            write_checkpoint(path, OLD, TENSORS)
            assert crash(path, n, when) == CRASHED
            file = open_checkpoint(path)
            whole = all(np.array_equal(file[k], v) for k, v in TENSORS.items())
            others = len(os.listdir(folder)) - 1
            removed = len(remove_abandoned(str(folder / "net")))
            left = len(os.listdir(folder)) - 1
            results.append([call, when, file.header.step, whole, others, removed, left])
    print(json.dumps(results))


def crash(path: Path, n: int, when: When) -> int:
    """Save in a child that ends at its n-th call; returns how it ended."""
    child = os.fork()
    if child == 0:
        system = FaultySystem(n, when, lambda: os._exit(CRASHED))
        write_checkpoint(path, NEW, TENSORS, system=system)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
