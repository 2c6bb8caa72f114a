"""Checkpoint files as an enemy would make them: right in form, wrong in content."""

from __future__ import annotations

import zlib
from typing import Any

import msgpack

from asyncmod.checkpoint.layout import (
    MAGIC,
    PREFIX,
    TRAILER,
    TRAILER_MAGIC,
    data_begin,
)

CONTENT: dict[str, Any] = {
    "version": 1,
    "schema": "test",
    "run": "r",
    "created": 1.0,
    "epoch": 0,
    "batch": 0,
    "step": 0,
    "state": {},
    "tensors": [],
}


def record(**changes: Any) -> dict[str, Any]:
    """The header's entry of four zeros of float32 at the beginning of the data."""
    zeros = zlib.crc32(bytes(16)).to_bytes(4, "little")
    return {
        "name": "a",
        "dtype": "float32",
        "shape": [4],
        "offset": 0,
        "bytes": 16,
        "crc32": zeros,
        **changes,
    }


def forge(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    """A file with this header and these data; lengths and checksums are right."""
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    prefix = PREFIX.pack(MAGIC, len(packed), zlib.crc32(packed)) + packed
    return with_trailer(prefix.ljust(data_begin(len(packed)), b"\0") + data)


def with_trailer(content: bytes) -> bytes:
    """The content with the trailer that belongs to its length."""
    trailer = TRAILER_MAGIC + (len(content) + TRAILER.size).to_bytes(8, "little")
    return content + trailer + zlib.crc32(trailer).to_bytes(4, "little")


def header_of(file: bytes) -> bytes:
    """The msgpack in a file."""
    _, length, _ = PREFIX.unpack_from(file)
    return file[PREFIX.size : PREFIX.size + length]


def data_of(file: bytes) -> bytes:
    """The segments in a file, with the zeros between them."""
    return file[data_begin(len(header_of(file))) : -TRAILER.size]
