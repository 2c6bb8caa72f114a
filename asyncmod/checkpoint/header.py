"""The header of a checkpoint file: what is in it, and where, as msgpack.

A file's header is read as if an enemy had written it: everything that is not exactly as
the writer makes it is refused, and its size is bounded by that of the file, since small
msgpack can become large objects.

Next: `asyncmod.checkpoint.writer` and `asyncmod.checkpoint.mapped_file`.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np

from asyncmod.checkpoint.layout import (
    DTYPES,
    Segment,
    aligned,
    block_count,
)

VERSION = 1
MAX_NDIM = 32
MAX_ELEMENTS = 2**56
MAX_NAME = 4096
"""Characters."""
OBJECTS_PER_BYTE = 96
"""Bytes of Python objects that one byte of msgpack may become, at most."""
HEADER_LIMIT = 64 << 20
FREE_MEMORY = 48 << 20


class InvalidHeaderError(ValueError):
    """A header is not as the writer makes it."""


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself.

    Attributes:
        schema: What kind of state it holds.
        run: Which training it belongs to; resumed trainings keep theirs.
        created: Seconds since 1970, by the clock of the machine that wrote it.
        epoch: The epoch to go on with.
        batch: Batches of this epoch that have been applied.
        step: Batches of all epochs that have been applied.
        state: Everything but arrays, as plain data.
        segments: The arrays, in the order of their offsets.
    """

    schema: str
    run: str
    created: float
    epoch: int
    batch: int
    step: int
    state: Mapping[str, Any] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()


def longest_header(file_size: int) -> int:
    """Bytes that the header of a file of this size may have."""
    return min(HEADER_LIMIT, (file_size + FREE_MEMORY) // OBJECTS_PER_BYTE)


def encode(header: Header) -> bytes:
    """A header as msgpack; checksums count as zeros as long as they are missing.

    Raises:
        InvalidHeaderError: `state` is no plain data, or a name or shape is refused.
    """
    try:
        packed: bytes = msgpack.packb(
            {
                "version": VERSION,
                "schema": header.schema,
                "run": header.run,
                "created": header.created,
                "epoch": header.epoch,
                "batch": header.batch,
                "step": header.step,
                "state": header.state,
                "tensors": [
                    {
                        "name": segment.name,
                        "dtype": segment.dtype,
                        "shape": list(segment.shape),
                        "offset": segment.offset,
                        "bytes": segment.nbytes,
                        "crc32": segment.checksums
                        or bytes(4 * block_count(segment.nbytes)),
                    }
                    for segment in header.segments
                ],
            },
            default=_as_number,
        )
        # What could not be read again must not be written.
        decode(packed)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidHeaderError(f"this state cannot be saved: {error}") from error
    return packed


def decode(packed: bytes | memoryview) -> Header:
    """A header from msgpack.

    Raises:
        InvalidHeaderError: saying what is wrong with it.
    """
    try:
        content = msgpack.unpackb(
            packed,
            strict_map_key=True,
            object_pairs_hook=_without_duplicates,
            ext_hook=_refuse_extension,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise InvalidHeaderError(
            f"the header is no msgpack of this format: {type(error).__name__} {error}"
        ) from None
    _expect(isinstance(content, dict), "the header is no map")
    version = content.get("version")
    _expect(_is_count(version), "the header has no version")
    _expect(
        version <= VERSION,
        f"it is of version {version}, and this asyncmod reads up to {VERSION}: use the "
        "version that wrote it, or a newer one",
    )
    _expect(content.keys() == _FIELDS.keys(), "the header lacks a key, or has another")
    for name, has_type in _FIELDS.items():
        _expect(has_type(content[name]), f"`{name}` of the header is of a wrong type")
    return Header(
        schema=content["schema"],
        run=content["run"],
        created=float(content["created"]),
        epoch=content["epoch"],
        batch=content["batch"],
        step=content["step"],
        state=content["state"],
        segments=_segments(content["tensors"]),
    )


def _segments(records: list[Any]) -> tuple[Segment, ...]:
    """The table of arrays; they follow each other, aligned, and none twice."""
    segments: list[Segment] = []
    names: set[str] = set()
    begin = 0
    for number, record in enumerate(records):
        segment = _segment(number, record)
        name = segment.name
        _expect(name not in names, f"the tensor {name!r} stands twice")
        _expect(
            segment.offset == begin,
            f"the tensor {name!r} begins at {segment.offset} of the data, not {begin}",
        )
        names.add(name)
        begin = aligned(segment.end)
        segments.append(segment)
    return tuple(segments)


def _segment(number: int, record: Any) -> Segment:
    what = f"tensor {number} of the header"
    _expect(
        isinstance(record, dict) and record.keys() == _RECORD, f"{what} is no record"
    )
    name, dtype, shape = record["name"], record["dtype"], record["shape"]
    _expect(isinstance(name, str) and 0 < len(name) <= MAX_NAME, f"{what} has no name")
    _expect(
        isinstance(dtype, str) and dtype in DTYPES,
        f"{name!r} has the dtype {reprlib.repr(dtype)}; known are {', '.join(DTYPES)}",
    )
    _expect(
        isinstance(shape, list)
        and len(shape) <= MAX_NDIM
        and all(_is_count(size) for size in shape)
        # NumPy refuses an empty array, too, if its other axes are too long.
        and math.prod(size or 1 for size in shape) < MAX_ELEMENTS,
        f"{name!r} has a shape that no array has",
    )
    nbytes = math.prod(shape) * DTYPES[dtype].itemsize
    _expect(_is_count(record["offset"]), f"{name!r} has no offset")
    _expect(
        record["bytes"] == nbytes,
        f"{name!r} is said to have {record['bytes']} bytes, and its shape {shape} of "
        f"{dtype} needs {nbytes}",
    )
    checksums = record["crc32"]
    _expect(
        isinstance(checksums, bytes) and len(checksums) == 4 * block_count(nbytes),
        f"{name!r} has another number of checksums than blocks",
    )
    return Segment(name, dtype, tuple(shape), record["offset"], checksums)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "version": _is_count,
    "schema": _is_text,
    "run": _is_text,
    "created": _is_seconds,
    "epoch": _is_count,
    "batch": _is_count,
    "step": _is_count,
    "state": lambda value: isinstance(value, dict),
    "tensors": lambda value: isinstance(value, list),
}
_RECORD = {"name", "dtype", "shape", "offset", "bytes", "crc32"}


def _expect(condition: bool, reason: str) -> None:
    if not condition:
        raise InvalidHeaderError(reason)


def _without_duplicates(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise InvalidHeaderError("a key is no text")
        if key in content:
            raise InvalidHeaderError(f"the key {key[:100]!r} stands twice")
        content[key] = value
    return content


def _as_number(value: Any) -> Any:
    """NumPy's scalars count as numbers."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} is no plain data")


def _refuse_extension(code: int, data: bytes) -> Any:
    raise InvalidHeaderError(f"extension type {code}")
