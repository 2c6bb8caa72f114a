"""The virtual machine that runs a plan's table: one call for any number of rows."""

from __future__ import annotations

from types import NoneType
from typing import Any

from llvmlite import ir

from runtime.kernels.cpu.lowering import (
    INT64,
    primitive,
)
from runtime.kernels.cpu.table import ROW
from runtime.kernels.cpu.vector import get_integer

_ROW_FUNCTION = ir.FunctionType(ir.VoidType(), [INT64])


@primitive(NoneType, int, int)
def call(builder: Any, function: Any, row: Any) -> None:
    """Call the code at an address with the address of a row."""
    builder.call(builder.inttoptr(function, _ROW_FUNCTION.as_pointer()), [row])


def run_rows(table: int, rows: int) -> None:
    """Run `rows` rows in order; word 0 of each is the address of its code."""
    for row in range(rows):
        place = table + 8 * ROW * row
        call(get_integer(place, 0), place)
