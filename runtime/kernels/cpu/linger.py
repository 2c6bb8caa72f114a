"""Waiting for another thread to change a word of memory, without the interpreter."""

from __future__ import annotations

from types import NoneType
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from runtime.kernels.cpu.vector import INT32, INT64, primitive

# Some 0.2 us each: together longer than a task takes from one step's end to the next
# step's begin, and short against the scheduler's time slice.
_TURNS = 3000
_LOOKS = 32


@primitive(int, int)
def read_shared(builder: Any, address: Any) -> Any:
    """Read an int64 that another thread may be writing."""
    place = builder.inttoptr(address, INT64.as_pointer())
    return builder.load_atomic(place, "acquire", 8)


@primitive(NoneType)
def give_way(builder: Any) -> None:
    """Let another thread have the core, if one wants it."""
    function_type = ir.FunctionType(INT32, [])
    name = "sched_yield"
    builder.call(
        cgutils.get_or_insert_function(builder.module, function_type, name), []
    )


def linger(address: int, value: int) -> None:
    """Return once the int64 at the address is not `value`, or after a while."""
    for _ in range(_TURNS):
        for _ in range(_LOOKS):
            if read_shared(address) != value:
                return
        give_way()
