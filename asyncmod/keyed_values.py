"""The values of a store, by key: checked, summed up, updated, copied out.

Next: `asyncmod.keyed_arrays` for keys and arrays as callers give them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asyncmod.errors import ArgumentError
from asyncmod.keyed_arrays import Array, Key, Pairs, pair_up
from asyncmod.nd.array import as_given
from asyncmod.optimizer import Updater
from runtime.row_sparse import RowSparseNDArray

Keys = Key | Sequence[Key]
Values = Any  # an array, a list of arrays, or with several keys a list of those
UpdateFunction = Callable[[Key, Array, Array], object]
"""`updater(key, pushed, stored)` changes `stored` in place."""
Rows = Sequence[tuple[tuple[Key, Any], Array]]


class KeyedValues:
    """See the module; one call at a time.

    Attributes:
        updater: What is done with sums that are pushed; None stores them.
    """

    def __init__(self) -> None:
        self._stored: dict[Key, Array] = {}
        self.updater: UpdateFunction | None = None

    def check_new(self, key: Keys, value: Values) -> Pairs:
        """Keys with their first values, one each.

        Raises:
            ArgumentError: a key is there already, or keys of two types are mixed.
        """
        pairs = pair_up(key, value, "value")
        names = [name for name, _ in pairs]
        self._check_keys(names)
        for name, arrays in pairs:
            if name in self._stored or names.count(name) > 1:
                raise ArgumentError(f"duplicate init of key {name}")
            if len(arrays) != 1:
                raise ArgumentError(
                    f"`value` of key {name!r} must be one array, not {len(arrays)}"
                )
        return pairs

    def check(self, key: Keys, value: Values, argument: str) -> Pairs:
        """Keys with their arrays, which fit the values that are stored.

        Raises:
            ArgumentError: an unknown key, or an array that does not fit.
        """
        pairs = pair_up(key, value, argument)
        self._check_keys([name for name, _ in pairs])
        for name, arrays in pairs:
            if name not in self._stored:
                raise ArgumentError(
                    f"key {name} doesn't exist. Did you init? "
                    f"`await store.init({name!r}, value)` comes first"
                )
            for array in arrays:
                _check_fit(name, array, self._stored[name], argument)
        return pairs

    def check_rows(self, rows: Rows) -> None:
        """Raise ArgumentError unless the numbers are those of rows of the values."""
        for (name, _), numbers in rows:
            stored = self._stored[name]
            if stored.ndim == 0 or not _within(numbers, len(stored)):
                raise ArgumentError(
                    f"`row_ids` of key {name!r} must be row numbers of shape "
                    f"{stored.shape}, and they are {numbers}"
                )

    def add(self, pairs: Pairs) -> None:
        """Store copies of first values, all or none."""
        copies = {name: np.array(arrays[0]) for name, arrays in pairs}
        self._stored.update(copies)

    def push(self, pairs: Pairs) -> None:
        """Sum arrays and give the sum to the updater, or store it."""
        for name, arrays in pairs:
            stored = self._stored[name]
            total = _sum(arrays, stored.dtype)
            if (
                isinstance(total, RowSparseNDArray)
                and isinstance(self.updater, Updater)
                and self.updater.optimizer.rule is not None
            ):
                # Changes the rows that were pushed, when all of it has succeeded.
                self.updater(name, total, stored)
                continue
            if self.updater is not None:
                pushed, total = total, stored.copy()
                self.updater(name, as_given(pushed), as_given(total))
            self._stored[name] = np.asarray(total)

    def pull(self, outs: Pairs, ignore_sparse: bool) -> None:
        """Copy values into arrays."""
        for name, arrays in outs:
            for array in arrays:
                if isinstance(array, RowSparseNDArray):
                    if not ignore_sparse:
                        whole = RowSparseNDArray.whole(self._stored[name].copy())
                        array.indices, array.values = whole.indices, whole.values
                    continue
                np.copyto(array, self._stored[name], casting="same_kind")

    def pull_rows(self, rows: Rows) -> None:
        """Copy some rows of values into arrays; their other rows become zero."""
        for (name, array), numbers in rows:
            if isinstance(array, RowSparseNDArray):
                array.indices = np.unique(numbers)
                pulled = self._stored[name][array.indices]
                array.values = pulled.astype(array.dtype, copy=False)
                continue
            array[...] = 0
            array[numbers] = self._stored[name][numbers]

    def _check_keys(self, keys: list[Key]) -> None:
        known = [*self._stored][:1] + keys
        for key in keys:
            if isinstance(known[0], str) != isinstance(key, str):
                raise ArgumentError(
                    "keys of one store are all strings or all integers; key "
                    f"{key!r} comes after {known[0]!r}"
                )


def _sum(arrays: Sequence[Any], dtype: np.dtype[Any]) -> Any:
    """The sum from the first to the last; row-sparse if all of them are."""
    if all(isinstance(array, RowSparseNDArray) for array in arrays):
        first, *others = (array.astype(dtype) for array in arrays)
        return sum(others, first)
    total = np.array(arrays[0], dtype)
    for array in arrays[1:]:
        total += np.asarray(array).astype(dtype, copy=False)
    return total


def _within(numbers: Array, count: int) -> bool:
    return not numbers.size or bool(numbers.min() >= 0 and numbers.max() < count)


def _check_fit(key: Key, array: Any, stored: Array, argument: str) -> None:
    if array.shape != stored.shape:
        raise ArgumentError(
            f"`{argument}` of key {key!r} must have the shape of its value, "
            f"{stored.shape}, and it has {array.shape}"
        )
    given, taken = (stored, array) if argument == "out" else (array, stored)
    if not np.can_cast(given.dtype, taken.dtype, "same_kind"):
        raise ArgumentError(
            f"`{argument}` of key {key!r} has dtype {array.dtype}, which does not go "
            f"with the value's, {stored.dtype}"
        )
