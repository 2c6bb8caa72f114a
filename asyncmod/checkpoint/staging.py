"""Staging: memory that states are copied into, the same one for every save.

Training waits for the copy alone, and that is short where the memory has been touched
before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Staging:
    """Arrays by name, kept from one save to the next.

    Attributes:
        arrays: Those of the present save.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._kept: dict[str, Array] = {}

    def begin(self) -> None:
        """Begin another save; nobody may still read the arrays of the one before."""
        self.arrays = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: str) -> Array:
        """An array of the present save, to be filled by the caller."""
        kept = self._kept.get(name)
        if kept is None or kept.shape != shape or kept.dtype != dtype:
            kept = np.empty(shape, dtype)
        self.arrays[name] = self._kept[name] = kept
        return kept

    def copy(self, name: str, array: Array) -> None:
        """Store a copy of an array."""
        dtype = array.dtype.newbyteorder("=").name
        self.array(name, array.shape, dtype)[...] = array

    def keep(self, name: str, array: Array) -> None:
        """Store an array that nobody changes, without a copy."""
        self.arrays[name] = array

    def put(self, name: str, content: bytes | bytearray) -> None:
        """Store bytes as an array."""
        target = self.array(name, (len(content),), "uint8")
        target[...] = np.frombuffer(content, np.uint8)
