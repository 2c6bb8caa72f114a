"""What the devices carry from step to step besides parameters and states, as a tree.

State inputs that were set, and gradients that are added up over the steps.

Next: `runtime.executor.snapshot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.executor.snapshot import Carried
from runtime.row_sparse import RowSparseNDArray


def as_tree(shares: Sequence[Carried]) -> list[dict[str, Any]]:
    """Arrays and plain data, one dict per device."""
    return [
        {
            "states": share.states,
            "gradients": {
                name: (gradient.indices, gradient.values, gradient.shape)
                if isinstance(gradient, RowSparseNDArray)
                else gradient
                for name, gradient in share.gradients.items()
            },
        }
        for share in shares
    ]


def from_tree(tree: Sequence[dict[str, Any]]) -> list[Carried]:
    """What `as_tree` has made a tree of."""
    return [
        Carried(
            part["states"],
            {
                name: RowSparseNDArray(*gradient)
                if isinstance(gradient, tuple)
                else gradient
                for name, gradient in part["gradients"].items()
            },
        )
        for part in tree
    ]
