"""Writing a checkpoint file: arrays block by block, their checksums on the way.

The header is written last, when the checksums are known; its length is known before.
Synchronous: `asyncmod.checkpoint.saver` calls it in a thread.

Next: `asyncmod.checkpoint.replacing`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncmod.checkpoint.file_system import OPERATING_SYSTEM, FileSystem
from asyncmod.checkpoint.header import (
    Header,
    InvalidHeaderError,
    encode,
    longest_header,
)
from asyncmod.checkpoint.layout import (
    DTYPES,
    MAGIC,
    PREFIX,
    TRAILER,
    TRAILER_MAGIC,
    Segment,
    aligned,
    data_begin,
    data_length,
)
from asyncmod.checkpoint.replacing import NewFile, replacing
from asyncmod.errors import CheckpointError

Array = NDArray[Any]


def write_checkpoint(
    path: str | PathLike[str],
    header: Header,
    tensors: Mapping[str, Array],
    *,
    between_blocks: Callable[[], object] = lambda: None,
    system: FileSystem = OPERATING_SYSTEM,
) -> None:
    """Write a checkpoint, which appears whole and on the disk, or not at all.

    Args:
        path: The file; what it held before is replaced.
        header: What to say of it; its segments are made here.
        tensors: Arrays by name.
        between_blocks: Called before each block; what it raises abandons the file.
        system: The file system.

    Raises:
        CheckpointError: the system refused it, a dtype is not of the format, or the
            header's state is no plain data. What was at `path` is still there.
    """
    path = fspath(path)
    arrays = {name: _plain(name, array) for name, array in tensors.items()}
    try:
        header = replace(header, segments=_place(arrays))
        length = len(encode(header))
    except InvalidHeaderError as error:
        raise CheckpointError(f"cannot save {path}: {error}") from error
    begin = data_begin(length)
    size = begin + data_length(header.segments) + TRAILER.size
    if length > longest_header(size):
        raise CheckpointError(
            f"cannot save {path}: its header would have {length} bytes, and a file of "
            f"{size} bytes may have {longest_header(size)}: put long lists of numbers "
            "into arrays"
        )
    with replacing(path, size, system) as file:
        segments = []
        for segment in header.segments:
            data = arrays[segment.name].reshape(-1).view(np.uint8).data
            checksums = _write_blocks(file, begin, segment, data, between_blocks)
            segments.append(replace(segment, checksums=checksums))
        between_blocks()
        trailer = TRAILER_MAGIC + size.to_bytes(8, "little")
        trailer += zlib.crc32(trailer).to_bytes(4, "little")
        file.write(memoryview(trailer), size - TRAILER.size)
        packed = encode(replace(header, segments=tuple(segments)))
        prefix = PREFIX.pack(MAGIC, length, zlib.crc32(packed))
        file.write(memoryview(prefix + packed), 0)


def _write_blocks(
    file: NewFile,
    begin: int,
    segment: Segment,
    data: memoryview,
    between_blocks: Callable[[], object],
) -> bytes:
    """Write one segment; returns its checksums."""
    checksums = []
    for first, last in segment.blocks():
        between_blocks()
        block = data[first - segment.offset : last - segment.offset]
        checksums.append(zlib.crc32(block).to_bytes(4, "little"))
        file.write(block, begin + first)
    return b"".join(checksums)


def _place(arrays: Mapping[str, Array]) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    offset = 0
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("=").name
        segments.append(Segment(name, dtype, array.shape, offset))
        offset = aligned(segments[-1].end)
    return tuple(segments)


def _plain(name: str, value: Array) -> Array:
    """`value` as it stands in a file: contiguous and little-endian."""
    array = np.asarray(value)
    dtype = DTYPES.get(array.dtype.newbyteorder("=").name)
    if dtype is None:
        raise CheckpointError(
            f"the array {name!r} has the dtype {array.dtype}, which checkpoints do not "
            f"have: cast it to one of {', '.join(DTYPES)}"
        )
    return np.asarray(array, dtype, order="C")
