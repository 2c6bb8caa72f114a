"""The compiled kernels of this process.

Nothing is compiled or loaded before it is asked for. Follow one row: the compiler
of plans writes it with `table.encode`, puts `Library.address` in its word 0, and
`Library.run` runs it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import DeviceError
from runtime.kernels.cpu.cache import ObjectCache, logger, open_cache
from runtime.kernels.cpu.table import KERNELS
from runtime.kernels.cpu.target import host_target
from runtime.kernels.cpu.tile_shapes import TILE_SHAPES

_OLDEST_NUMBA = (0, 62)  # its LLVM has untyped pointers
_RUN = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)
_LINGER = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)
_HAND_OVER = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
_RUN_TWO_PHASES = ctypes.CFUNCTYPE(None, ctypes.c_int64)


class Library:
    """Kernels by name, and the virtual machine that runs their rows.

    Attributes:
        available: whether there are kernels; without Numba there are none.
    """

    def __init__(self, code: _Code | None) -> None:
        self._code = code
        self._lock = threading.RLock()
        self._addresses: dict[str, int] = {}
        self.available = code is not None
        if code is not None:
            self._run: Callable[..., None] = _RUN(code.function("vm"))

    def address(self, kernel_name: str) -> int:
        """Address of a kernel's code, compiled or loaded at the first request.

        Safe in any thread. Compiling takes a fraction of a second once per machine.

        Raises:
            KeyError: there is no such kernel.
            DeviceError: there are no kernels in this process, or Numba broke.
        """
        known = self._addresses.get(kernel_name)
        if known is not None:
            return known
        if kernel_name not in KERNELS:
            raise KeyError(f"no kernel is named {kernel_name!r}")
        if self._code is None:
            raise DeviceError(
                f"kernel {kernel_name!r}: native kernels are not available; "
                "install numba, and do not set ASYNCMOD_NUMBA=0"
            )
        with self._lock:
            if kernel_name not in self._addresses:
                try:
                    self._addresses[kernel_name] = self._code.kernel(kernel_name)
                except ImportError as error:
                    raise DeviceError(
                        f"kernel {kernel_name!r} must be compiled, but numba cannot "
                        f"be imported: {error}; repair it, or set ASYNCMOD_NUMBA=0"
                    ) from error
            return self._addresses[kernel_name]

    def run(self, table_address: int, rows: int) -> None:
        """Run rows of a table; the GIL is free meanwhile.

        Args:
            table_address: byte address of the first row; word 0 of every row holds
                `address` of its kernel, and its buffers must outlive the call.
            rows: how many rows.
        """
        self._run(table_address, rows)

    def runner(self, table: NDArray[np.int64]) -> Callable[[], None]:
        """What does `run` with a whole table, which must outlive it."""
        # Ready-made integers spare each call a conversion.
        arguments = ctypes.c_int64(table.ctypes.data), ctypes.c_int64(len(table))
        return partial(self._run, *arguments)

    @property
    def beside_threads(self) -> bool:
        """Whether `linger`, `hand_over` and `run_two_phases` are there.

        They need functions of POSIX, and a core besides the one that whoever is waited
        for needs.
        """
        return self.available and sys.platform != "win32" and os.cpu_count() != 1

    def linger(self) -> Callable[[int, int], None]:
        """What waits until the int64 at an address differs from a value, or a while.

        The GIL is free meanwhile.
        """
        return _LINGER(self._function("linger"))

    def hand_over(self) -> Callable[[int, int, int, int], None]:
        """What writes the int64 at an address, and waits until another one differs.

        Its arguments are the address, what to write there, the other address, and what
        stands there. It waits a while at most. The GIL is free before it writes.
        """
        return _HAND_OVER(self._function("hand_over"))

    def run_two_phases(self) -> Callable[[int], None]:
        """What runs the job at an address, whose words are `table.JobWord`.

        The GIL is free meanwhile.
        """
        return _RUN_TWO_PHASES(self._function("two_phases"))

    def _function(self, name: str) -> int:
        assert self._code is not None
        with self._lock:
            return self._code.function(name)


def _check_numba_version() -> None:
    version = metadata.version("numba")
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_NUMBA:
        oldest = ".".join(map(str, _OLDEST_NUMBA))
        raise ImportError(f"version {version} is older than {oldest}")


@functools.cache
def _load() -> Library:
    if os.environ.get("ASYNCMOD_NUMBA") == "0":
        reason = "switched off by ASYNCMOD_NUMBA=0"
    elif not all(importlib.util.find_spec(name) for name in ("numba", "llvmlite")):
        reason = "numba is not installed"
    else:
        try:
            _check_numba_version()
            return Library(_Code(open_cache()))
        except ImportError as error:
            reason = f"numba cannot be imported: {error}"
    logger().warning("native kernels are not available; NumPy is used", reason=reason)
    return Library(None)


_load_lock = threading.Lock()


def load() -> Library:
    """The library of this process, made at the first call; safe in any thread.

    If Numba is missing, broken or switched off (`ASYNCMOD_NUMBA=0`), one warning is
    logged and the library's `available` is False.
    """
    with _load_lock:
        return _load()


class _Code:
    """Compiles object code or takes it from the cache, and loads it."""

    def __init__(self, cache: ObjectCache) -> None:
        from llvmlite import binding

        self._binding = binding
        self._cache = cache
        self._digest = _digest()
        self._engines: list[Any] = []  # they own the loaded code
        self._tiles_loaded = False
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()

    def function(self, name: str) -> int:
        """Address of the virtual machine, or of what works beside other threads."""
        return self._address(name)

    def kernel(self, name: str) -> int:
        """Address of a kernel."""
        self._load_tiles()
        return self._address(name)

    def _address(self, name: str) -> int:
        engine = self._engine(name)
        return int(engine.get_function_address(f"asyncmod_{name}"))

    def _load_tiles(self) -> None:
        if self._tiles_loaded:
            return
        engine = self._engine("tiles")
        for shape in TILE_SHAPES:
            address = engine.get_global_value_address(shape.symbol)
            self._binding.add_symbol(shape.symbol, address)
        self._tiles_loaded = True

    def _engine(self, name: str) -> Any:
        binding = self._binding
        file_name = f"{name}-{self._digest}.o"
        code = self._cache.read(file_name)
        if code is None:
            code = self._compile(name)
            self._cache.write(file_name, code)
        machine = self._machine()
        module = binding.parse_assembly("")
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        engine = binding.create_mcjit_compiler(module, machine)
        engine.add_object_file(binding.ObjectFileRef.from_data(code))
        engine.finalize_object()
        self._engines.append(engine)
        return engine

    def _compile(self, name: str) -> bytes:
        from runtime.kernels.cpu import compiler

        machine = self._machine()
        if name == "tiles":
            return compiler.compile_tiles(machine)
        if name in compiler.FUNCTIONS:
            return compiler.compile_function(name, machine)
        return compiler.compile_kernel(name, machine)

    def _machine(self) -> Any:
        target = host_target()
        triple = self._binding.get_process_triple()
        if sys.platform == "win32":
            triple += "-elf"  # the format that LLVM can load into a process there
        found = self._binding.Target.from_triple(triple)
        return found.create_target_machine(
            cpu=target.cpu, features=target.features, opt=3, jit=True
        )


def _digest() -> str:
    """Digest of all that object code depends on."""
    parts = hashlib.sha256(repr(host_target()).encode())
    for package in ("numba", "llvmlite"):
        parts.update(metadata.version(package).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        parts.update(source.read_bytes())
    return parts.hexdigest()[:24]
