"""SciPy, whose CSR matrices stand for sparse data; an optional dependency."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from runtime.errors import AsyncmodError


class MissingScipyError(AsyncmodError, ImportError):
    """SciPy, whose matrices stand for sparse data, is not installed."""


def need_scipy(user: str) -> None:
    """Say early that SciPy will be needed; it is not loaded.

    Args:
        user: What needs it, such as "LibSVMIter hands out".

    Raises:
        MissingScipyError: SciPy is not installed.
    """
    if importlib.util.find_spec("scipy") is None:
        raise MissingScipyError(
            f"{user} scipy.sparse matrices, and SciPy is not installed: "
            "pip install 'asyncmod[sparse]'"
        )


def scipy_sparse(user: str) -> Any:
    """The module `scipy.sparse`, loaded at the first call; see `need_scipy`."""
    need_scipy(user)
    return import_module("scipy.sparse")


def join_rows(parts: Sequence[Any]) -> Any:
    """Sparse matrices joined by rows, as CSR."""
    return scipy_sparse("sparse batches are").vstack(parts, format="csr")
