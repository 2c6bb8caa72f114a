"""Where everything is in a checkpoint file; `docs/checkpoint-format.md` is the text.

    prefix | header | zeros to a page | segment | zeros | segment | ... | trailer

Offsets of segments count from the first page after the header, so that they do not
depend on the header's own length.

Next: `asyncmod.checkpoint.header`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

MAGIC = b"ASYNCMD1"
TRAILER_MAGIC = b"ASYNCEND"
PREFIX = struct.Struct("<8sQI")
"""Magic, length of the header, its crc32."""
TRAILER = struct.Struct("<8sQI")
"""Magic, length of the file, crc32 of these two."""
PAGE = 4096
ALIGNMENT = 64
BLOCK = 4 << 20
"""Bytes under one checksum."""

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "bool",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}


@dataclass(frozen=True, slots=True)
class Segment:
    """One array in a file.

    Attributes:
        name: Its name.
        dtype: A key of `DTYPES`.
        shape: Its shape; the values are in row-major order.
        offset: Where it begins, from the beginning of the data.
        checksums: crc32 of each of its blocks, four bytes each, little-endian.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    checksums: bytes = b""

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    @property
    def end(self) -> int:
        """The byte behind its last one."""
        return self.offset + self.nbytes

    def blocks(self) -> Iterator[tuple[int, int]]:
        """First and last byte + 1 of each block, from the beginning of the data."""
        for begin in range(self.offset, self.end, BLOCK):
            yield begin, min(begin + BLOCK, self.end)


def block_count(nbytes: int) -> int:
    """How many blocks so many bytes make."""
    return -(-nbytes // BLOCK)


def aligned(offset: int, alignment: int = ALIGNMENT) -> int:
    """The first multiple of `alignment` that is not below `offset`."""
    return -(-offset // alignment) * alignment


def data_begin(header_length: int) -> int:
    """Where the data begin in a file with such a header."""
    return aligned(PREFIX.size + header_length, PAGE)


def data_length(segments: tuple[Segment, ...]) -> int:
    """Bytes of all segments, with the zeros after the last one."""
    return aligned(segments[-1].end) if segments else 0
