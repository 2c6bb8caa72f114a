"""What kernels need to work beside other threads: shared words, yielding, a clock."""

from __future__ import annotations

from types import NoneType
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from runtime.kernels.cpu.lowering import (
    INT32,
    INT64,
    primitive,
)

# Functions of the C library that are called.
SYSTEM_FUNCTIONS = ("sched_yield", "clock_gettime")


def _call(builder: Any, name: str, *values: Any) -> None:
    kind = ir.FunctionType(INT32, [value.type for value in values])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.call(function, values)


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, INT64.as_pointer())


@primitive(int, int)
def read_shared(builder: Any, address: Any) -> Any:
    """Read an int64 that another thread may be writing."""
    return builder.load_atomic(_word(builder, address), "acquire", 8)


@primitive(NoneType, int, int)
def write_shared(builder: Any, address: Any, value: Any) -> None:
    """Write an int64 that another thread may be reading."""
    builder.store_atomic(value, _word(builder, address), "release", 8)


@primitive(NoneType)
def keep_order(builder: Any) -> None:
    """What is written after this is not written before what comes before it."""
    builder.fence("acq_rel")


@primitive(int, int)
def count_down(builder: Any, address: Any) -> Any:
    """Take one from an int64 that other threads count too; what is left."""
    one = ir.Constant(INT64, 1)
    before = builder.atomic_rmw("sub", _word(builder, address), one, "acq_rel")
    return builder.sub(before, one)


@primitive(NoneType)
def give_way(builder: Any) -> None:
    """Let another thread have the core, if one wants it."""
    _call(builder, "sched_yield")


@primitive(NoneType, int, int)
def read_clock(builder: Any, clock: Any, address: Any) -> None:
    """Write a clock of the system to memory: int64 seconds and nanoseconds."""
    number = builder.trunc(clock, INT32)
    _call(builder, "clock_gettime", number, _word(builder, address))
