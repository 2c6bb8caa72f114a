"""Sparse data: inputs that are CSR matrices, and rows of parameters by number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
    InputError,
    NameMismatchError,
)
from asyncmod.scipy_sparse import scipy_sparse
from runtime.graph.ir import Graph

_CSR = "2"  # MXNet's number of the storage type


def csr_variables(graph: Graph) -> frozenset[str]:
    """Variables that are declared with `stype="csr"`."""
    return frozenset(
        node.name
        for node in graph.arguments
        if node.text.get("__storage_type__") == _CSR
    )


def as_csr(name: str, value: Any) -> Any:
    """A sparse or dense matrix as a CSR matrix that has each element once.

    Raises:
        InputError: it is no matrix of numbers.
        MissingScipyError: SciPy is not installed.
    """
    if not hasattr(value, "tocsr"):
        dense = np.asarray(value)
        if dense.ndim != 2:
            raise InputError(
                f"`{name}` has shape {dense.shape}; a CSR input is a matrix"
            )
        value = scipy_sparse("CSR inputs are").csr_matrix(dense)
    matrix = value.tocsr()
    if matrix.dtype.kind not in "fiub":
        raise InputError(
            f"`{name}` has dtype {matrix.dtype}; it must hold real numbers"
        )
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def check_row_ids(row_ids: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check what a `sparse_row_id_fn` gave; see `Module.prepare`."""
    if not isinstance(row_ids, Mapping):
        raise ArgumentTypeError(
            "`sparse_row_id_fn` must give a dict from parameter to row numbers, not "
            f"{type(row_ids).__name__}"
        )
    for name, given in row_ids.items():
        if name not in shapes:
            raise NameMismatchError(
                f"`sparse_row_id_fn` names `{name}`, which is no parameter; there are "
                f"{', '.join(shapes)}"
            )
        rows, count = np.asarray(given), shapes[name][0]
        if rows.size and not 0 <= rows.min() <= rows.max() < count:
            raise ArgumentError(
                f"`sparse_row_id_fn` gave rows {rows.min()} to {rows.max()} of "
                f"`{name}`, which has {count} rows"
            )
