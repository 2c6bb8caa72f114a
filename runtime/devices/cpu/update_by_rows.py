"""The native rows of a lazy update."""

from __future__ import annotations

from runtime.devices.cpu import cost
from runtime.devices.cpu.update import Operands, kernel_rule
from runtime.graph.plan import (
    Address,
    NativeRow,
    RowSparseTensor,
    RowSparseUpdateRow,
    Span,
    Tensor,
    spans,
)
from runtime.kernels.cpu.table import LAZY_RULES

_WORD = 8  # bytes


def lazy_rows(
    row: RowSparseUpdateRow, numbers: Tensor, scratch: Address
) -> tuple[NativeRow, NativeRow] | None:
    """See `runtime.graph.build.Native.update_by_rows`."""
    rule = kernel_rule(row.rule, row)
    if row.weight.dtype != "float32" or rule not in LAZY_RULES or row.reset:
        return None
    kept = (row.weight, *row.states)
    devices, count = len(row.gradients), row.weight.shape[0]
    words = 2 * devices + len(kept)
    room = Span(scratch.segment, scratch.offset, scratch.offset + _WORD * words)
    gradient_rows = tuple(gradient.rows.address for gradient in row.gradients)
    share: Operands = {
        "gradient_rows": gradient_rows,
        "devices": devices,
        "part": row.part,
        "parts": row.parts,
        "numbers": numbers.address,
        "scratch": scratch,
    }
    lazy: Operands = {
        "tensors": tuple(tensor.address for tensor in kept),
        "kept": len(kept),
        "gradient_rows": gradient_rows,
        "gradient_values": tuple(g.values.address for g in row.gradients),
        "devices": devices,
        "columns": row.weight.size // count,
        "hyper": row.hyper.address,
        "numbers": numbers.address,
        "scratch": scratch,
    }
    # How many rows there will be is not known: a thread, but for small tables.
    return (
        NativeRow(
            "share_rows",
            row.node,
            share,
            reads=spans(gradient.rows for gradient in row.gradients),
            writes=(*spans((numbers,)), room),
            cost=cost.floats(2 * count),
        ),
        NativeRow(
            f"lazy_{rule}",
            row.node,
            lazy,
            reads=(*row.reads, *spans((numbers,))),
            writes=(*spans(kept), room),
            cost=cost.floats(len(kept) * row.weight.size),
            tables=tuple(RowSparseTensor(numbers, tensor) for tensor in kept),
        ),
    )
