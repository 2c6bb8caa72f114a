"""From kernels in Python to object code, by Numba and LLVM.

Imported only when something must be compiled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import binding
from numba import cfunc, config, types
from numba.core.compiler_lock import global_compiler_lock

from runtime.kernels.cpu import (
    batch_norm,
    channel_sums,
    convolution,
    depthwise,
    dropout,
    elementwise,
    embedding,
    gemm,
    layout,
    permute,
    pooling,
    recurrent,
    softmax,
    update,
    update_by_rows,
    update_groups,
    update_halves,
    update_noise,
    update_norms,
)
from runtime.kernels.cpu.entry import row_function
from runtime.kernels.cpu.linger import hand_over, linger
from runtime.kernels.cpu.microkernel import tiles_module
from runtime.kernels.cpu.threads import SYSTEM_FUNCTIONS
from runtime.kernels.cpu.tile_shapes import TILE_SHAPES
from runtime.kernels.cpu.two_phases import two_phases
from runtime.kernels.cpu.vm import run_rows

# Importing these registers their kernels.
KERNEL_MODULES = (
    batch_norm,
    channel_sums,
    convolution,
    depthwise,
    dropout,
    elementwise,
    embedding,
    gemm,
    layout,
    permute,
    pooling,
    recurrent,
    softmax,
    update,
    update_by_rows,
    update_groups,
    update_halves,
    update_noise,
    update_norms,
)

_KNOWN = {
    *("memset", "memcpy", "memmove"),
    *SYSTEM_FUNCTIONS,
    *(shape.symbol for shape in TILE_SHAPES),
}


def compile_tiles(machine: Any) -> bytes:
    """Object code of the register tiles; it defines their tables."""
    module = binding.parse_assembly(tiles_module())
    return bytes(machine.emit_object(module))


# What is no kernel: functions of int64 arguments, and how many.
FUNCTIONS: dict[str, tuple[Callable[..., None], int]] = {
    "vm": (run_rows, 2),
    "two_phases": (two_phases, 1),
    "linger": (linger, 2),
    "hand_over": (hand_over, 4),
}


def compile_function(name: str, machine: Any) -> bytes:
    """Object code of one of `FUNCTIONS`, a function named `asyncmod_<name>`."""
    function, arguments = FUNCTIONS[name]
    return _compile(function, arguments, f"asyncmod_{name}", machine)


def compile_kernel(name: str, machine: Any) -> bytes:
    """Object code of a kernel, a function named `asyncmod_<name>`."""
    return _compile(row_function(name), 1, f"asyncmod_{name}", machine)


@contextlib.contextmanager
def _unoptimized() -> Iterator[None]:
    """Keep Numba from optimizing every helper function and all that it calls.

    The kernel as a whole is optimized later, once. Other threads' functions are not
    concerned: Numba compiles under the lock that is held meanwhile.
    """
    names = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE")
    with global_compiler_lock:
        before = {name: getattr(config, name) for name in names}
        for name in names:
            setattr(config, name, type(before[name])(0))
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(config, name, value)


def _compile(
    function: Callable[..., None], arguments: int, name: str, machine: Any
) -> bytes:
    """Object code of one function of int64 arguments, under a plain name.

    Kernels raise nothing, so that Numba's status is ignored and with its error
    paths every reference to the interpreter goes away.
    """
    with _unoptimized():
        compiled = cfunc(types.void(*[types.int64] * arguments), error_model="numpy")(
            function
        )
        text = compiled.inspect_llvm()
    inner = compiled.native_name.removeprefix("cfunc.")
    values = ", ".join(f"i64 %a{i}" for i in range(arguments))
    entry = (
        f"\ndefine void @{name}({values}) {{\n  %result = alloca ptr\n"
        f"  %error = alloca ptr\n"
        f"  %status = call i32 @{inner}(ptr %result, ptr %error, {values})\n"
        "  ret void\n}\n"
    )
    module = binding.parse_assembly(text + entry)
    for definition in module.functions:
        if not definition.is_declaration and definition.name != name:
            definition.linkage = "internal"
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = False  # kernels are written in vectors
    options.slp_vectorization = False
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    unknown = {
        symbol.name
        for symbol in (*module.functions, *module.global_variables)
        if symbol.is_declaration and not symbol.name.startswith("llvm.")
    } - _KNOWN
    if unknown:
        raise RuntimeError(f"kernel {name} refers to {sorted(unknown)}")
    return bytes(machine.emit_object(module))
