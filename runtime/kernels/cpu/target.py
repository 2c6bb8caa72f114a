"""What the kernels need to know of the processor they run on."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Processor that code is generated for.

    Attributes:
        cpu: LLVM's name of the processor.
        features: LLVM's feature string.
        lanes: float32 elements in one vector: 16 with AVX-512, else 8.
        halves: whether it converts float16.
        cache_bytes: size of the second-level cache, as far as it is known.
    """

    cpu: str
    features: str
    lanes: int
    halves: bool
    cache_bytes: int

    @property
    def panel(self) -> int:
        """Columns of one panel of a packed matrix: two vectors."""
        return 2 * self.lanes

    @property
    def accumulators(self) -> int:
        """Vectors that registers can hold beside the operands of a multiply-add."""
        return 28 if self.lanes == 16 else 12  # of 32 registers, of 16


@functools.cache
def host_target() -> Target:
    """The processor of this machine.

    `ASYNCMOD_LANES=8` asks for the narrower vectors on a processor with AVX-512,
    so that their code can be tested there.
    """
    lanes, cpu, features, halves = 8, "", "", False
    try:
        from llvmlite import binding

        cpu = binding.get_host_cpu_name()
        host = binding.get_host_cpu_features()
    except ImportError:
        pass  # no kernels will be compiled, but tables can be written
    except RuntimeError:
        pass  # LLVM knows no features of this kind of processor
    else:
        features = host.flatten()
        halves = bool(host.get("f16c") or platform.machine() in ("arm64", "aarch64"))
        if host.get("avx512f") and os.environ.get("ASYNCMOD_LANES") != "8":
            lanes = 16
    return Target(cpu, features, lanes, halves, _cache_bytes())


def _cache_bytes() -> int:
    try:
        size = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (AttributeError, OSError, ValueError):
        size = 0
    return size if size > 0 else 512 * 1024
