"""The native rows of a parameter update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeGuard

from runtime.devices.cpu import cost
from runtime.graph.plan import (
    Address,
    NativeRow,
    Row,
    RowSparseUpdateRow,
    Span,
    Tensor,
    UpdateRow,
    spans,
)
from runtime.kernels.cpu.table import KERNELS, UPDATE_RULES
from runtime.kernels.cpu.target import host_target
from runtime.ops.update import get_rule

# Rules that first measure the weight, and what then updates it.
_MEASURED = {"lars": "sgd", "lamb": "lamb", "lbsgd": "lbsgd"}

Operands = dict[str, Address | tuple[Address, ...] | int | float]

_CAN_SAVE = frozenset(f"update_{rule}" for rule in UPDATE_RULES)

_FLOAT32 = "float32"
# In cache: only small updates are asked for their cost.
_MICROSECONDS_PER_FLOAT = 1e-4
_NOISE = 16  # what an element's random number costs, in floats


def update_rows(row: UpdateRow) -> list[NativeRow] | None:
    """See `runtime.graph.build.Native.update`."""
    if row.master is not None:
        return _through_master(row, row.master)
    rule = kernel_rule(_MEASURED.get(row.rule, row.rule), row)
    if row.weight.dtype != _FLOAT32 or f"update_{rule}" not in KERNELS:
        return None
    rows = [_ones(row)] if row.reset else []
    if row.rule not in _MEASURED:
        return [*rows, _update(f"update_{rule}", row)]
    place = replace(row.hyper.address, segment="scaled")
    scaled = replace(row, hyper=replace(row.hyper, address=place))
    written = Span(place.segment, place.offset, place.offset + row.hyper.nbytes)
    measure = _update(f"measure_{row.rule}", row)
    measure = replace(
        measure,
        operands={**measure.operands, "scaled": place},
        writes=(*measure.writes, written),
    )
    return [*rows, measure, _update(f"update_{rule}", scaled)]


def kernel_rule(name: str, row: UpdateRow | RowSparseUpdateRow) -> str:
    """What kernels call a rule, which an optimizer may use without its last state."""
    plain = len(row.states) < len(get_rule(row.rule).states)
    return name + "_plain" * plain


def can_save(row: Row) -> TypeGuard[NativeRow]:
    """Whether a row can save what it changes: an update of each element by itself."""
    return isinstance(row, NativeRow) and row.kernel in _CAN_SAVE


def saving(
    row: NativeRow, copies: Sequence[Address], saved: Address, before: int
) -> NativeRow:
    """The same update, which saves what it changes.

    Args:
        row: An update that `can_save`.
        copies: Where to save what it writes, in the order of `row.writes`.
        saved: Where it counts the bytes of each tensor that are safe: an int64.
        before: Where that count begins.
    """
    operands: Operands = {"copies": tuple(copies), "saved": saved, "before": before}
    return replace(row, operands={**row.operands, **operands})


def _through_master(row: UpdateRow, master: Tensor) -> list[NativeRow] | None:
    """The update of a float32 copy, between two conversions."""
    wide = replace(master, address=replace(master.address, segment="wide"))
    are_wide = row.gradients[0].dtype == _FLOAT32  # sums over several batches
    gradients = row.gradients if are_wide else (wide,)
    inner = update_rows(replace(row, weight=master, gradients=gradients, master=None))
    if inner is None or row.reset or not host_target().halves:
        return None
    weight = row.weight
    both: Operands = {
        "weight": weight.address,
        "master": master.address,
        "size": weight.size,
    }
    sums: Operands = {
        "gradients": tuple(gradient.address for gradient in row.gradients),
        "devices": len(row.gradients),
        "wide": wide.address,
    }
    took = cost.ROW + 3 * weight.size * _MICROSECONDS_PER_FLOAT

    def convert(
        kernel: str, operands: Operands, reads: Iterable[Tensor], *writes: Tensor
    ) -> NativeRow:
        return NativeRow(kernel, row.node, operands, spans(reads), spans(writes), took)

    if are_wide:
        first = convert("update_refine", both, (weight, master), master)
    else:
        reads = (weight, master, *row.gradients)
        first = convert("update_widen", both | sums, reads, master, wide)
    return [first, *inner, convert("update_narrow", both, (master,), weight)]


def accumulate_row(
    source: Tensor, target: Tensor, add: bool, node: str
) -> NativeRow | None:
    """See `runtime.graph.build.Native.accumulate`."""
    if source.dtype != _FLOAT32:
        return None
    size = source.size
    flat = {"outer": 1, "middle": 1, "inner": size}
    strides = dict.fromkeys(("x_outer", "x_middle", "y_outer", "y_middle"), 0)
    others = {"n": size, "alpha": 1.0} if add else {**strides, **flat}
    return NativeRow(
        "scale_add" if add else "copy",
        node,
        {"x": source.address, "y": target.address, **others},
        reads=spans((source, target) if add else (source,)),
        writes=spans((target,)),
        cost=cost.ROW + 3 * size * _MICROSECONDS_PER_FLOAT,
    )


def _update(kernel: str, row: UpdateRow) -> NativeRow:
    size, streams = row.weight.size, 2 + 2 * len(row.states) + len(row.gradients)
    operands: Operands = {
        "tensors": (row.weight.address, *(s.address for s in row.states)),
        "gradients": tuple(gradient.address for gradient in row.gradients),
        "devices": len(row.gradients),
        "size": size,
        "hyper": row.hyper.address,
    }
    if kernel in _CAN_SAVE:
        operands |= {"copies": 0, "saved": 0, "before": 0}
    if row.rule == "groupadagrad":
        operands["columns"] = row.weight.shape[1]
    if row.rule == "sgld":
        streams += _NOISE
    return NativeRow(
        kernel,
        row.node,
        operands,
        reads=row.reads,
        writes=spans(row.kept),
        cost=cost.ROW + size * streams * _MICROSECONDS_PER_FLOAT,
    )


def _ones(row: UpdateRow) -> NativeRow:
    weight = row.weight.address
    return NativeRow(
        "set_value",
        row.node,
        {"y": weight, "count": row.weight.size, "value": 1.0},
        reads=(),
        writes=(
            Span(weight.segment, weight.offset, weight.offset + row.weight.nbytes),
        ),
        cost=cost.ROW,
    )
