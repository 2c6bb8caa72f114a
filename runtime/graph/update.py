"""The plan of an update: the fused sum of gradients and optimizer step.

Devices that share memory run one part each of the same update: part i covers the i-th
share of all elements, or the parameters whose middle lies there if the rule needs them
whole. A plan is made once, when the optimizer is set up.

Next: `runtime.executor.collective`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

from runtime.graph.build import Native
from runtime.graph.plan import Address, Layout, Plan, Row, Tensor, UpdateRow

HYPER_LIMIT = 16  # scalars that a rule may have


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
) -> Plan:
    """Plan one device's part of an update.

    Segments: `parameter`, `gradient.<d>` for each device and `state.<name>` all have
    the parameters' layout; `hyper` holds one float64 tensor (names, hyper) that is
    written before each launch of section "update", and `scaled` is scratch of the same
    size for kernels.

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
    """
    tensors = [layout.tensors[name] for name in names]
    hyper_layout = Layout.pack("hyper", [("hyper", (len(names), hyper), "float64")])
    total = sum(tensor.size for tensor in tensors)
    first, last = total * part // parts, total * (part + 1) // parts
    rows: list[Row] = []
    position = 0
    for i, (name, tensor) in enumerate(zip(names, tensors, strict=True)):
        begin = min(max(first - position, 0), tensor.size)
        end = min(max(last - position, 0), tensor.size)
        if whole:
            inside = first <= position + tensor.size // 2 < last
            begin, end = 0, tensor.size if inside else 0
        position += tensor.size
        if begin == end:
            continue
        base = hyper_layout.tensors["hyper"].address.offset + 8 * hyper * i
        piece = partial(_piece, tensor, begin=begin, end=end, whole=whole)
        row = UpdateRow(
            rule,
            name,
            piece("parameter"),
            tuple(piece(f"gradient.{device}") for device in range(devices)),
            tuple(piece(f"state.{state}") for state in states),
            Tensor(Address("hyper", base), (hyper,), "float64"),
            reset=name in fixed_ones,
        )
        kernels = native.update(row) if native is not None else None
        rows.extend(kernels if kernels is not None else [row])
    gradients = [f"gradient.{device}" for device in range(devices)]
    flat = ["parameter", *gradients, *(f"state.{state}" for state in states)]
    return Plan(
        segments={
            **dict.fromkeys(flat, layout.nbytes),
            "hyper": hyper_layout.nbytes,
            "scaled": hyper_layout.nbytes,
        },
        tensors={
            **{
                segment: {name: layout.rename(segment).tensors[name] for name in names}
                for segment in flat
            },
            "hyper": hyper_layout.tensors,
        },
        sections={"update": tuple(rows)},
        slotted=(),
        zeroed=tuple(f"state.{state}" for state in states),
    )


def _piece(
    tensor: Tensor, segment: str, *, begin: int, end: int, whole: bool
) -> Tensor:
    if whole:
        return replace(tensor, address=replace(tensor.address, segment=segment))
    itemsize = tensor.nbytes // tensor.size
    offset = tensor.address.offset + begin * itemsize
    return Tensor(Address(segment, offset), (end - begin,), tensor.dtype)
