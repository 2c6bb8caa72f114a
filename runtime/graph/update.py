"""The plan of an update: the fused sum of gradients and optimizer step.

Devices that share memory run one part each of the same update: part i covers the i-th
share of all elements, or the parameters whose middle lies there if the rule needs them
whole. A plan is made once, when the optimizer is set up.

Next: `runtime.ops.update` for the rules, `runtime.kernels.cpu.update` for kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

from runtime.graph.build import Native
from runtime.graph.plan import (
    HALF,
    Address,
    DefinitionRow,
    Layout,
    Plan,
    Row,
    Tensor,
    UpdateRow,
    round_up,
)
from runtime.graph.row_sparse_update import BESIDE, RowSparseOperands

HYPER_LIMIT = 16  # scalars that a rule may have
MASTER = "master"


def plan_update(
    rule: str,
    layout: Layout,
    names: Sequence[str],
    *,
    states: Sequence[str] = (),
    hyper: int,
    devices: int = 1,
    part: int = 0,
    parts: int = 1,
    whole: bool = False,
    native: Native | None = None,
    fixed_ones: Collection[str] = (),
    master: bool = False,
    gradient_rows: Layout | None = None,
    gap: int = 0,
    lazy: bool = False,
    accumulated: bool = False,
) -> Plan:
    """Plan one device's part of an update.

    Segments: `parameter` and `gradient.<d>` for each device have the parameters' layout
    (sums: see `accumulated`), `state.<name>` that of the states; `hyper` holds one
    float64 tensor (names, hyper) that is written before each update. Scratch for
    kernels: `scaled` of the same size, and `wide`, laid out as the states, for
    parameters that have masters. Section "prepare" computes what has no kernel, beside
    what it reads, so that section "update" cannot fail.

    Args:
        rule: Name in `runtime.ops.update`.
        layout: The parameters' layout.
        names: Parameters to update, in the order of the rows of `hyper`.
        states: Names of the optimizer's states.
        hyper: Scalars per parameter.
        devices: How many gradients are summed.
        part, parts: Which share of all elements this plan covers.
        whole: Never divide a parameter between parts, and keep its shape.
        native: What the device offers besides NumPy definitions.
        fixed_ones: Parameters that enter the update as 1 (BatchNorm's fixed gamma).
        master: Keep float32 states for float16 parameters, among them a copy of the
            parameter itself, `state.master`, which is what is updated.
        gradient_rows: Layout of the row numbers of gradients that are row-sparse, which
            `gradient_rows.<d>` and `gradient_values.<d>` hold; None: there are none.
        gap: Bytes that are left free between two row-sparse gradients.
        lazy: Update only the rows that these gradients have (of parameters without
            master copies); otherwise they are made dense first.
        accumulated: The gradients are sums as `plan_accumulate` makes them: float32
            for float16 parameters.
    """
    summed = layout.widened() if accumulated else layout
    tensors = [layout.tensors[name] for name in names]
    numbers = gradient_rows or Layout({}, 0)
    row_sparse = RowSparseOperands(numbers, summed, devices, gap)
    masters = {
        n for n, t in zip(names, tensors, strict=True) if master and t.dtype == HALF
    }
    by_rows = {n for n in names if lazy and n in row_sparse and n not in masters}
    kept = layout.widened() if master else layout
    states = (*states, MASTER) if master else states
    hyper_layout = Layout.pack("hyper", [("hyper", (len(names), hyper), "float64")])
    total = sum(layout.tensors[name].size for name in names if name not in by_rows)
    first, last = total * part // parts, total * (part + 1) // parts
    prepare: list[Row] = []
    update: list[Row] = []
    beside = beside_rows = 0
    position = 0
    for i, (name, tensor) in enumerate(zip(names, tensors, strict=True)):
        begin = min(max(first - position, 0), tensor.size)
        end = min(max(last - position, 0), tensor.size)
        is_whole = whole or name in row_sparse
        if is_whole:
            inside = name in by_rows or first <= position + tensor.size // 2 < last
            begin, end = 0, tensor.size if inside else 0
        if name not in by_rows:
            position += tensor.size
        if begin == end:
            continue
        base = hyper_layout.tensors["hyper"].address.offset + 8 * hyper * i
        cut = partial(_piece, begin=begin, end=end, whole=is_whole)
        state, gradient = (partial(cut, k.tensors[name]) for k in (kept, summed))
        own = [state(f"state.{s}") for s in states]
        row = UpdateRow(
            rule,
            name,
            cut(tensor, "parameter"),
            tuple(gradient(f"gradient.{device}") for device in range(devices)),
            tuple(own[:-1] if master else own),
            Tensor(Address("hyper", base), (hyper,), "float64"),
            reset=name in fixed_ones,
            master=own[-1] if name in masters else None,
        )
        if name in by_rows:
            compute, changes, beside_rows = row_sparse.lazy(
                row, part, parts, beside_rows, native
            )
            prepare.append(compute)
            update.extend(changes)
            continue
        if name in row_sparse:
            copies, dense, beside = row_sparse.made_dense(name, beside)
            prepare.extend(copies)
            row = replace(row, gradients=dense)
        kernels = native.update(row) if native is not None else None
        if kernels is not None:
            update.extend(kernels)
            continue
        row, beside = _beside(row, beside)
        prepare.append(row)
        update.extend(
            DefinitionRow.planned("=", name, target, result)
            for result, target in zip(row.results, row.kept, strict=True)
        )
    gradients = [f"gradient.{device}" for device in range(devices)]
    layouts = {
        **row_sparse.segments,
        "parameter": layout.rename("parameter"),
        **{name: summed.rename(name) for name in gradients},
        **{f"state.{state}": kept.rename(f"state.{state}") for state in states},
    }
    return Plan(
        segments={
            **{segment: placed.nbytes for segment, placed in layouts.items()},
            "hyper": hyper_layout.nbytes,
            "scaled": hyper_layout.nbytes,
            "beside": beside,
            BESIDE: beside_rows,
            "wide": kept.nbytes if masters else 0,
        },
        tensors={
            **{
                segment: {
                    n: placed.tensors[n]
                    for n in names
                    if n in placed.tensors
                    and not (segment in gradients and n in row_sparse)
                }
                for segment, placed in layouts.items()
            },
            "hyper": hyper_layout.tensors,
        },
        sections={"prepare": tuple(prepare), "update": tuple(update)},
        slotted=(),
        zeroed=tuple(f"state.{state}" for state in states),
        by_rows=(*row_sparse.segments, BESIDE),
    )


def _beside(row: UpdateRow, offset: int) -> tuple[UpdateRow, int]:
    """The row with places for its results from `offset` on, and where they end."""
    results = []
    for tensor in row.kept:
        results.append(replace(tensor, address=Address("beside", offset)))
        offset += round_up(tensor.nbytes)
    return replace(row, results=tuple(results)), offset


def _piece(
    tensor: Tensor, segment: str, *, begin: int, end: int, whole: bool
) -> Tensor:
    if whole:
        return replace(tensor, address=replace(tensor.address, segment=segment))
    itemsize = tensor.nbytes // tensor.size
    offset = tensor.address.offset + begin * itemsize
    return Tensor(Address(segment, offset), (end - begin,), tensor.dtype)
