"""Reading a checkpoint file: it is mapped, and its arrays are views of the map.

Whatever the file holds, the only error is CheckpointError, and no more memory is used
than the file's length and a fixed amount.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from os import PathLike, fspath
from typing import Any, Literal, NoReturn, get_args

import numpy as np
from numpy.typing import NDArray

from asyncmod.checkpoint.header import (
    Header,
    InvalidHeaderError,
    decode,
    longest_header,
)
from asyncmod.checkpoint.layout import (
    DTYPES,
    MAGIC,
    PREFIX,
    TRAILER,
    TRAILER_MAGIC,
    Segment,
    data_begin,
    data_length,
)
from asyncmod.checkpoint.replacing import failed
from asyncmod.errors import CheckpointError

Array = NDArray[Any]
Verify = Literal["full", "lazy", "none"]


def open_checkpoint(
    path: str | PathLike[str], verify: Verify = "full"
) -> CheckpointFile:
    """Map a checkpoint file.

    Args:
        path: The file.
        verify: When the checksums of the arrays are compared: "full" now, "lazy" as
            each array is first asked for, "none" never. Everything else is always
            checked now.

    Raises:
        CheckpointError: the file cannot be read, is no checkpoint, or is damaged, with
            the place of the damage.
    """
    if verify not in get_args(Verify):
        raise ValueError(f"`verify` must be 'full', 'lazy' or 'none', not {verify!r}")
    file = CheckpointFile(fspath(path), verify)
    if verify == "full":
        try:
            for name in file:
                file[name]
        except BaseException:
            file.close()
            raise
    return file


class CheckpointFile(Mapping[str, Array]):
    """The arrays of a checkpoint by name; made by `open_checkpoint`.

    They are read-only views of the mapped file, which stays mapped (and holds one file
    descriptor) until the last of them is gone. The file may be replaced or removed
    meanwhile, but must not be changed in place.

    Attributes:
        path: The file.
        header: What it says of itself.
    """

    def __init__(self, path: str, verify: Verify) -> None:
        self.path = path
        self._map = _map(path)
        try:
            self.header = self._read_header()
        except BaseException:
            self._map.close()
            raise
        self._segments = {segment.name: segment for segment in self.header.segments}
        self._unverified = set() if verify == "none" else set(self._segments)

    def close(self) -> None:
        """Give the map back at once; does nothing while arrays are views of it."""
        with contextlib.suppress(BufferError):
            self._map.close()

    def __getitem__(self, name: str) -> Array:
        """An array.

        Raises:
            CheckpointError: it is damaged.
        """
        segment = self._segments[name]
        if name in self._unverified:
            self._verify(segment)
            self._unverified.remove(name)
        return np.ndarray(
            segment.shape,
            DTYPES[segment.dtype],
            buffer=self._map,
            offset=self._begin + segment.offset,
        )

    def __contains__(self, name: object) -> bool:
        return name in self._segments

    def __iter__(self) -> Iterator[str]:
        return iter(self._segments)

    def __len__(self) -> int:
        return len(self._segments)

    def _read_header(self) -> Header:
        """Check everything but the arrays and the zeros between them."""
        size = len(self._map)
        if size < PREFIX.size + TRAILER.size:
            self._refuse(f"it has {size} bytes, too few for any checkpoint")
        magic, length, checksum = PREFIX.unpack(self._map[: PREFIX.size])
        if magic != MAGIC:
            self._refuse("it does not begin as a checkpoint does", 0)
        if length > longest_header(size) or length > size - PREFIX.size - TRAILER.size:
            self._refuse(f"its header would have {length} bytes", len(MAGIC))
        self._begin = data_begin(length)
        header = self._map[PREFIX.size : PREFIX.size + length]
        if zlib.crc32(header) != checksum:
            self._refuse("the header does not match its checksum", PREFIX.size)
        try:
            result = decode(header)
        except InvalidHeaderError as error:
            self._refuse(str(error), PREFIX.size)
        expected = self._begin + data_length(result.segments) + TRAILER.size
        if size != expected:
            self._refuse(f"it has {size} bytes, and its header speaks of {expected}")
        self._expect_zeros(PREFIX.size + length, self._begin)
        self._check_trailer(size)
        return result

    def _check_trailer(self, size: int) -> None:
        begin = size - TRAILER.size
        magic, length, checksum = TRAILER.unpack(self._map[begin:])
        if (magic, length) != (TRAILER_MAGIC, size) or checksum != zlib.crc32(
            self._map[begin : size - 4]
        ):
            self._refuse("the trailer is damaged", begin)

    def _verify(self, segment: Segment) -> None:
        """Compare an array with its checksums; what follows it must be zeros."""
        for number, (first, last) in enumerate(segment.blocks()):
            expected = int.from_bytes(segment.checksums[4 * number :][:4], "little")
            if self._on_block(zlib.crc32, first, last) != expected:
                self._refuse(
                    f"block {number} of the tensor {segment.name!r} does not match its "
                    "checksum",
                    self._begin + first,
                )
            if segment.dtype == "bool" and self._on_block(_largest, first, last) > 1:
                self._refuse(
                    f"the tensor {segment.name!r} holds more than 0 and 1",
                    self._begin + first,
                )
        end = self._begin + segment.end
        self._expect_zeros(end, self._begin + data_length((segment,)))

    def _on_block(self, function: Callable[..., int], first: int, last: int) -> int:
        """Call a function with some of the data, as a view that ends with the call."""
        begin, end = self._begin + first, self._begin + last
        with memoryview(self._map) as view, view[begin:end] as block:
            return function(block)

    def _expect_zeros(self, begin: int, end: int) -> None:
        content = self._map[begin:end]
        if content.count(0) != len(content):
            first = begin + len(content) - len(content.lstrip(b"\0"))
            self._refuse("there must be zeros", first)

    def _refuse(self, reason: str, offset: int | None = None) -> NoReturn:
        where = "" if offset is None else f" (at byte {offset})"
        raise CheckpointError(
            f"{self.path} is no valid checkpoint: {reason}{where}; use an older one"
        )


def _largest(block: memoryview) -> int:
    return int(np.frombuffer(block, np.uint8).max())


def _map(path: str) -> mmap.mmap:
    """The file's content as a map; only of a regular file that is not empty."""
    try:
        # A pipe would wait for a writer otherwise.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path} is no valid checkpoint: it is no file")
            if status.st_size == 0:
                raise CheckpointError(f"{path} is no valid checkpoint: it is empty")
            return mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise failed(f"cannot read {path}", error) from error
        raise CheckpointError(f"cannot read {path}: {error}") from error
