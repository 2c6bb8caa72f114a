"""Arrays by name, as iterators take them: one array, a list or a dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncmod.nd import NDArray
from runtime.errors import AsyncmodError


class MissingDataError(AsyncmodError, AssertionError):
    """An iterator was given no data."""


@dataclass(frozen=True)
class NamedArray:
    """A source array, the name of its input, and the dtype to hand out."""

    name: str
    array: Any
    dtype: np.dtype[Any]

    @property
    def is_sparse(self) -> bool:
        """Whether the array is a scipy.sparse CSR matrix."""
        return hasattr(self.array, "tocsr")

    def length(self, axis: int) -> int:
        """Rows along `axis`."""
        if self.array.ndim <= axis:
            raise ValueError(
                f"`{self.name}` has shape {self.array.shape} and no axis {axis}, which "
                "the layout makes the batch axis"
            )
        return int(self.array.shape[axis])

    def rows(self, where: np.ndarray[Any, Any] | slice, axis: int) -> Any:
        """The rows `where` along `axis`: a read-only view for a slice.

        Where they do not follow each other, or the dtype differs, a copy; of a sparse
        matrix a CSR matrix.
        """
        if self.is_sparse:
            return self.array[where].astype(self.dtype)
        if isinstance(where, slice) or isinstance(self.array, np.ndarray):
            rows = np.asarray(self.array[(slice(None),) * axis + (where,)])
        else:  # a file's data set takes increasing row numbers only
            found, order = np.unique(where, return_inverse=True)
            stored = np.asarray(self.array[(slice(None),) * axis + (found,)])
            rows = stored.take(order, axis)
        result = rows.astype(self.dtype, copy=False).view(NDArray)
        if isinstance(where, slice) and rows.dtype == self.dtype:
            result.flags.writeable = False
        return result


def name_arrays(
    source: Any, default_name: str, keep_dtype: bool, required: bool
) -> list[NamedArray]:
    """Name the arrays of `source`; see NDArrayIter.

    Raises:
        MissingDataError: nothing was given and something is `required`.
        TypeError: `source` is none of an array, a list or a dict of arrays.
    """
    if source is None or (isinstance(source, list | tuple | dict) and not source):
        if required:
            raise MissingDataError(
                "`data` must not be empty: give an array, a list or a dict of arrays"
            )
        return []
    if _is_array(source):
        named = {default_name: source}
    elif isinstance(source, list | tuple):
        several = len(source) > 1
        named = {
            f"_{i}_{default_name}" if several else default_name: array
            for i, array in enumerate(source)
        }
    elif isinstance(source, Mapping):
        named = dict(sorted(source.items()))
    else:
        raise _wrong_type(source)
    return [_named(name, array, keep_dtype) for name, array in named.items()]


def _named(name: str, array: Any, keep_dtype: bool) -> NamedArray:
    if not _is_array(array):
        raise _wrong_type(array)
    if hasattr(array, "tocsr"):
        array = array.tocsr()
    if not isinstance(getattr(array, "dtype", None), np.dtype):
        from_numpy = hasattr(array, "__array__")
        array = np.asarray(array) if from_numpy else np.from_dlpack(array)
    keeps = keep_dtype or isinstance(array, NDArray)
    return NamedArray(name, array, np.dtype(array.dtype if keeps else np.float32))


def _is_array(value: object) -> bool:
    return any(hasattr(value, n) for n in ("__array__", "__dlpack__", "tocsr"))


def _wrong_type(value: object) -> TypeError:
    return TypeError(
        "Input must be NDArray, numpy.ndarray, h5py.Dataset a list of them or dict "
        f"with them as values, not {type(value).__name__}"
    )
