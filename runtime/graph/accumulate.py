"""The plan of an accumulator: the sum of one device's gradients over several batches.

Next: `runtime.graph.update`, whose plan reads the accumulators.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from runtime.graph.build import Native
from runtime.graph.plan import DefinitionRow, Layout, Plan, Row


def plan_accumulate(
    layout: Layout,
    names: Sequence[str],
    present: Collection[str],
    native: Native | None = None,
) -> Plan:
    """Plan the accumulator of one device.

    Segments `gradient` and `accumulator` have the parameters' layout. Section "start"
    sets the accumulator to the gradients, "add" adds them.

    Args:
        layout: The parameters' layout.
        names: Parameters that have an accumulator.
        present: Those of them whose gradients are computed; others add nothing.
        native: What the device offers besides NumPy definitions.
    """
    gradients = layout.rename("gradient").tensors
    sums = layout.rename("accumulator").tensors

    def row(name: str, operator: str) -> Row:
        source, target = gradients[name], sums[name]
        if native is not None and operator != "0":
            kernel = native.accumulate(source, target, operator == "+=", name)
            if kernel is not None:
                return kernel
        inputs = () if operator == "0" else (source,)
        return DefinitionRow(operator, False, name, 0, {}, True, inputs, (target,))

    here = [name for name in names if name in present]
    absent = [name for name in names if name not in present]
    return Plan(
        segments=dict.fromkeys(("gradient", "accumulator"), layout.nbytes),
        tensors={
            "gradient": {name: gradients[name] for name in here},
            "accumulator": {name: sums[name] for name in names},
        },
        sections={
            "start": (*(row(n, "=") for n in here), *(row(n, "0") for n in absent)),
            "add": tuple(row(n, "+=") for n in here),
        },
        slotted=(),
        zeroed=(),
    )
