"""What is compared: each library's script, variants and environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from environment import PROJECT, ensure, prepare

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Library:
    """A library and the ways in which it is measured.

    Attributes:
        name: As in the results.
        script: What measures it, in this folder.
        variants: Each is measured; the best counts.
        variants_of_one_thread: Measured besides where one thread may compute.
        requirements: What pip installs for it; empty for this project itself.
        newest_python: The newest Python that it runs on, None for any.
    """

    name: str
    script: str
    variants: tuple[str, ...] = ("default",)
    variants_of_one_thread: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    newest_python: tuple[int, int] | None = None

    def variants_for(self, threads: int) -> tuple[str, ...]:
        return self.variants + (self.variants_of_one_thread if threads == 1 else ())

    def prepare(self) -> Path:
        """Make the library's environment where it is missing; its interpreter."""
        if not self.requirements:
            return ensure(dev=False)
        return prepare(
            PROJECT / ".peers" / self.name,
            self.requirements,
            {"requirements": list(self.requirements)},
            python=self.base_python(),
        )

    def base_python(self) -> str:
        """An interpreter that is not too new for the library."""
        newest = self.newest_python
        if newest is None or sys.version_info[:2] <= newest:
            return sys.executable
        name = f"python{newest[0]}.{newest[1]}"
        found = shutil.which(name)
        if found is None:
            sys.exit(f"{self.name} needs {name}, which was not found on PATH")
        return found


OURS = Library("asyncmod", "ours.py", variants=("single", "pipelined"))
PEERS = {
    library.name: library
    for library in (
        Library(
            "torch",
            "peers/torch_peer.py",
            variants=("default", "tuned"),
            requirements=("torch==2.13.0", "numpy"),
        ),
        Library(
            "jax",
            "peers/jax_peer.py",
            variants_of_one_thread=("pinned",),
            requirements=("jax", "jaxlib"),
        ),
        Library(
            "mxnet",
            "peers/mxnet_peer.py",
            # MXNet still uses names that NumPy 1.24 took away.
            requirements=("numpy==1.23.5", "mxnet==1.9.1"),
            newest_python=(3, 11),
        ),
    )
}


def measure(
    library: Library,
    python: Path,
    *,
    workload: str,
    mode: str,
    threads: int,
    seconds: float,
    variant: str,
) -> str:
    """Run one measurement in a process of its own; its JSON line.

    Raises:
        RuntimeError: if the process fails or takes far too long; with what it said.
    """
    command = [str(python), str(HERE / library.script)]
    command += ["--workload", workload, "--mode", mode, "--threads", str(threads)]
    command += ["--seconds", str(seconds), "--variant", variant]
    try:
        result = subprocess.run(
            command,
            env=surroundings(library, threads),
            capture_output=True,
            text=True,
            timeout=120 + 10 * seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{library.name}: {error}") from error
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    return result.stdout.strip().splitlines()[-1]


def surroundings(library: Library, threads: int) -> dict[str, str]:
    """The environment variables of a measurement."""
    # These two would choose OpenBLAS's kernels by hand.
    left_out = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
    variables = {k: v for k, v in os.environ.items() if k not in left_out}
    variables["PYTHONPATH"] = str(HERE)
    if library is not OURS:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            variables[name] = str(threads)
        # Operators of MXNet one after the other; the threads are inside them.
        variables["MXNET_CPU_WORKER_NTHREADS"] = "1"
    return variables
