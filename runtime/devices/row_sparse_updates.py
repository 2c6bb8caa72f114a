"""Updates of the rows that row-sparse gradients have, and of no others.

MXNet's `lazy_update` of `sgd_update`, `sgd_mom_update` and `adam_update`, and the
sparse forms of `adagrad_update`, `group_adagrad_update` and `ftrl_update`: the dense
formula, on some rows of weight and states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.devices.contract import StepKey
from runtime.graph.plan import RowSparseUpdateRow
from runtime.ops.update import get_rule
from runtime.row_sparse import summed_share

Array = NDArray[Any]


def bind_row_sparse_update(
    row: RowSparseUpdateRow, view: Callable[[Any], Any]
) -> Callable[[StepKey], None]:
    """The row as a callable; what it reads stays as it is."""
    apply = get_rule(row.rule).apply
    weight, hyper = view(row.weight), view(row.hyper)
    states = [view(state) for state in row.states]
    gradients = [view(gradient) for gradient in row.gradients]
    results = [view(result) for result in row.results]

    def run(key: StepKey) -> None:
        summands = [gradient.value for gradient in gradients]
        gradient = summed_share(summands, row.part, row.parts)
        rows = gradient.indices
        before = np.ones_like(gradient.values) if row.reset else weight[rows]
        after, states_after = apply(
            before, gradient.values, [state[rows] for state in states], hyper
        )
        for place, values in zip(results, (after, *states_after), strict=True):
            place.set(rows, values)

    return run
