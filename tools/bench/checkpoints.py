"""Time to save and to load 256 MB, beside torch.save and safetensors.

`python3 tools/bench/checkpoints.py [--rounds 5] [--folder DIR]` prints milliseconds;
`--peer` is a Python that has torch and safetensors. Every measurement is a process of
its own, and libraries take turns. A save ends when the bytes are on the disk (fsync of
the file). All of them have checksums of crc32: asyncmod and torch.save make their own,
safetensors, which has none, gets one pass of zlib's. A load ends when every byte has
been read and compared with its checksum; the two that do not compare get one pass.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
PEER = PROJECT / ".peers" / "torch" / "bin" / "python"
LIBRARIES = ("asyncmod", "torch", "safetensors")
COUNT, ELEMENTS = 64, 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to save; a temporary one unless given")
    parser.add_argument("--peer", type=Path, default=PEER, help="Python that has them")
    parser.add_argument("--measure", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.folder)))
        return
    times: dict[str, list[list[float]]] = {name: [] for name in LIBRARIES}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for _ in range(options.rounds):
            for name in LIBRARIES:
                python = sys.executable if name == "asyncmod" else str(options.peer)
                command = [python, __file__, "--measure", name, "--folder", folder]
                environment = os.environ | {"PYTHONPATH": str(PROJECT)}
                output = subprocess.check_output(command, env=environment, text=True)
                times[name].append(json.loads(output))
    print(
        f"{'':12} {'save':>16} {'load':>16}   minimum (median) of {options.rounds}, ms"
    )
    for name, rows in times.items():
        columns = [sorted(column) for column in zip(*rows, strict=True)]
        texts = [f"{c[0]:.0f} ({c[len(c) // 2]:.0f})" for c in columns]
        print(f"{name:12} {texts[0]:>16} {texts[1]:>16}")


def measure(name: str, folder: str) -> tuple[float, float]:
    """Milliseconds of one save and one load, after one save that does not count."""
    import numpy as np

    generator = np.random.default_rng(0)
    arrays = {
        f"weight{i}": generator.standard_normal(ELEMENTS, np.float32)
        for i in range(COUNT)
    }
    path = f"{folder}/{name}"
    save, load = library(name, arrays)
    save(path)
    os.unlink(path)
    os.sync()
    began = time.perf_counter()
    save(path)
    saved = time.perf_counter()
    load(path)
    loaded = time.perf_counter()
    os.unlink(path)
    return 1e3 * (saved - began), 1e3 * (loaded - saved)


def library(name: str, arrays: dict[str, Any]) -> tuple[Any, Any]:
    """How a library saves the arrays, and how it loads them."""
    if name == "asyncmod":
        from asyncmod.checkpoint import Header, open_checkpoint, write_checkpoint

        header = Header("bench", "", 0.0, 0, 0, 0)
        return (
            lambda path: write_checkpoint(path, header, arrays),
            lambda path: open_checkpoint(path, "full"),
        )
    if name == "torch":
        import torch

        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}

        def save(path: str) -> None:
            torch.save(tensors, path)
            synchronize(path)

        def load(path: str) -> None:
            for tensor in torch.load(path, weights_only=True, mmap=True).values():
                zlib.crc32(tensor.numpy())

        return save, load
    from safetensors.numpy import load_file, save_file

    def save_checked(path: str) -> None:
        for array in arrays.values():
            zlib.crc32(array)
        save_file(arrays, path)
        synchronize(path)

    def load_checked(path: str) -> None:
        for array in load_file(path).values():
            zlib.crc32(array)

    return save_checked, load_checked


def synchronize(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    main()
