"""The plan of an accumulator: the sum of one device's gradients over several batches.

Next: `runtime.graph.update`, whose plan reads the accumulators.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from runtime.graph.build import Native
from runtime.graph.face import row_values
from runtime.graph.plan import (
    DefinitionRow,
    Layout,
    Operand,
    Plan,
    Row,
    RowSparseTensor,
)


def plan_accumulate(
    layout: Layout,
    names: Sequence[str],
    present: Collection[str],
    native: Native | None = None,
    gradient_rows: Layout | None = None,
    gap: int = 0,
) -> Plan:
    """Plan the accumulator of one device.

    Segment `gradient` has the parameters' layout, and `accumulator` float32 in place of
    float16, so that small gradients add up. Row-sparse gradients and their sums are in
    segments `gradient_rows`, `accumulator_rows`, `gradient_values` and
    `accumulator_values`. Section "start" sets the accumulator to the gradients, "add"
    adds them.

    Args:
        layout: The parameters' layout.
        names: Parameters that have an accumulator.
        present: Those of them whose gradients are computed; others add nothing.
        native: What the device offers besides NumPy definitions.
        gradient_rows: Layout of the row numbers of gradients that are row-sparse.
        gap: Bytes that are left free between two of these.
    """
    numbers = gradient_rows or Layout({}, 0)
    kinds = {"gradient": layout, "accumulator": layout.widened()}
    values = {kind: row_values(numbers, dense, gap) for kind, dense in kinds.items()}
    gradients, sums = (dense.rename(k).tensors for k, dense in kinds.items())

    def sparse(name: str, kind: str) -> RowSparseTensor:
        return RowSparseTensor(
            numbers.rename(f"{kind}_rows").tensors[name],
            values[kind].rename(f"{kind}_values").tensors[name],
        )

    def row(name: str, operator: str) -> Row:
        source: Operand = gradients[name]
        target: Operand = sums[name]
        if name in numbers.tensors:
            source, target = sparse(name, "gradient"), sparse(name, "accumulator")
        elif native is not None and operator != "0":
            kernel = native.accumulate(
                gradients[name], sums[name], operator == "+=", name
            )
            if kernel is not None:
                return kernel
        sources = () if operator == "0" else (source,)
        return DefinitionRow.planned(operator, name, target, *sources)

    here = [name for name in names if name in present]
    absent = [name for name in names if name not in present]
    return Plan(
        segments={
            **{kind: dense.nbytes for kind, dense in kinds.items()},
            **dict.fromkeys(("gradient_rows", "accumulator_rows"), numbers.nbytes),
            **{f"{kind}_values": placed.nbytes for kind, placed in values.items()},
        },
        tensors={
            "gradient": {name: gradients[name] for name in here},
            "accumulator": {n: sums[n] for n in names if n not in numbers.tensors},
            "accumulator_rows": numbers.rename("accumulator_rows").tensors,
            "accumulator_values": (
                values["accumulator"].rename("accumulator_values").tensors
            ),
        },
        sections={
            "start": (*(row(n, "=") for n in here), *(row(n, "0") for n in absent)),
            "add": tuple(row(n, "+=") for n in here),
        },
        slotted=(),
        zeroed=(),
        by_rows=tuple(
            f"{kind}_{part}"
            for kind in ("gradient", "accumulator")
            for part in ("rows", "values")
        ),
    )
