"""How a kernel's Python function becomes code that a table's row can name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from runtime.kernels.cpu.lowering import (
    DOUBLE,
    INT64,
    inlined,
    load_unaligned,
    pointer,
    primitive,
)
from runtime.kernels.cpu.table import KERNELS

DEFINITIONS: dict[str, Callable[..., None]] = {}


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Register a function as the kernel of its name.

    Its arguments must be the kernel's fields: integers (int64), and float64 reals.

    Raises:
        TypeError: the arguments differ from the fields in `table.KERNELS`.
    """
    return named_kernel(function.__name__, function)


def named_kernel(name: str, function: Callable[..., None]) -> Callable[..., None]:
    """`kernel` under another name than the function's."""
    fields = [field.name for field in KERNELS[name].fields]
    arguments = list(inspect.signature(function).parameters)
    if arguments != fields:
        raise TypeError(f"kernel {name!r} takes {arguments}, its rows hold {fields}")
    DEFINITIONS[name] = inlined(function)
    return function


def row_function(name: str) -> Callable[[int], None]:
    """Function that takes the address of a row and calls the kernel with its fields."""
    fields = KERNELS[name].fields
    reals = [field.kind == "real" for field in fields]

    values_type: Any = types.Tuple(
        [types.float64 if real else types.int64 for real in reals]
    )

    @primitive(values_type, int)
    def unpack(builder: Any, row: Any) -> Any:
        elements = [DOUBLE if real else INT64 for real in reals]
        if len(set(elements)) == 1:  # Numba keeps a uniform tuple as an array
            values: Any = ir.ArrayType(elements[0], len(elements))
        else:
            values = ir.LiteralStructType(elements)
        value = ir.Constant(values, ir.Undefined)
        for word, element in enumerate(elements):
            place = pointer(builder, row, ir.Constant(INT64, word + 1), element)
            value = builder.insert_value(value, load_unaligned(builder, place, 8), word)
        return value

    body = DEFINITIONS[name]

    def run_row(row: int) -> None:
        body(*unpack(row))

    return run_row
