"""Keys and arrays as `mx.kvstore` takes them: one key or several, arrays or lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncmod.errors import ArgumentError
from runtime.row_sparse import RowSparseNDArray

Array = np.ndarray[Any, np.dtype[Any]]
Key = int | str
Pairs = list[tuple[Key, list[Any]]]
"""Keys with NumPy or row-sparse arrays."""


def pair_up(key: Key | Sequence[Key], value: Any, argument: str) -> Pairs:
    """Each key with its arrays.

    Args:
        key: A key, or a list of keys.
        value: An array, which may be row-sparse, or a list of arrays; with a list of
            keys, one of these each.
        argument: What the caller calls `value`; "out" must be arrays to write to.

    Raises:
        ArgumentError: something else, or not as many values as keys.
    """
    if isinstance(key, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(key):
            raise ArgumentError(
                f"`{argument}` must be a list with one entry for each of the "
                f"{len(key)} keys"
            )
        pairs = list(zip(key, value, strict=True))
    else:
        pairs = [(key, value)]
    return [(_key(name), _arrays(name, each, argument)) for name, each in pairs]


def row_numbers(row_ids: Any, count: int) -> list[Array]:
    """Row numbers for each of `count` arrays, from one array for all or a list.

    They may be floats, which is what `mx.nd.array` makes unless told otherwise.

    Raises:
        ArgumentError: something else, or not as many as there are arrays.
    """
    several = isinstance(row_ids, list | tuple) and not all(
        isinstance(row, int | float | np.number) for row in row_ids
    )
    each = list(row_ids) if several else [row_ids] * count
    if len(each) != count:
        raise ArgumentError(
            f"`row_ids` must be one array of row numbers, or {count} of them, one for "
            f"each array of `out`; there are {len(each)}"
        )
    numbers = [np.asarray([] if rows is None else rows) for rows in each]
    for rows in numbers:
        whole = rows.dtype.kind in "iu" or (
            rows.dtype.kind == "f" and np.array_equal(rows, np.floor(rows))
        )
        if row_ids is None or not whole:
            raise ArgumentError(f"`row_ids` must be whole numbers, not {row_ids!r}")
    return [rows.astype(np.int64).ravel() for rows in numbers]


def _key(key: Any) -> Key:
    if isinstance(key, np.integer):
        return int(key)
    if not isinstance(key, int | str) or isinstance(key, bool):
        raise ArgumentError(f"a key must be a string or an integer, not {key!r}")
    return key


def _arrays(key: Key, value: Any, argument: str) -> list[Any]:
    arrays = list(value) if isinstance(value, list | tuple) else [value]
    if not arrays:
        raise ArgumentError(f"`{argument}` of key {key!r} must not be empty")
    if argument == "out":
        for array in arrays:
            if isinstance(array, RowSparseNDArray):
                continue
            if not isinstance(array, np.ndarray) or not array.flags.writeable:
                raise ArgumentError(
                    f"`out` of key {key!r} must be NumPy arrays that can be written "
                    f"to, not {type(array).__name__}"
                )
        return arrays
    return [
        array if isinstance(array, RowSparseNDArray) else _dense(key, array, argument)
        for array in arrays
    ]


def _dense(key: Key, value: Any, argument: str) -> Array:
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        value = np.from_dlpack(value)
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ArgumentError(
            f"`{argument}` of key {key!r} must be dense arrays of numbers, not "
            f"{type(value).__name__}"
        )
    return array
