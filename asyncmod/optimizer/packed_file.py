"""Plain data as a msgpack file, written and read piece by piece.

msgpack holds the interpreter while it copies. What is large therefore goes past it,
between its array and the file, and all other threads run meanwhile.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import msgpack


def write(fname: str | PathLike[str], content: Any) -> None:
    """Write content to a file, which appears whole or not at all; synchronous.

    Args:
        fname: The file.
        content: Dicts, lists, and what msgpack knows; memoryviews of bytes stand for
            binary data.

    Raises:
        OSError: the file cannot be written.
        TypeError: something is no plain data.
    """
    beside = Path(f"{fspath(fname)}.partial")
    try:
        with beside.open("wb") as file:
            for piece in _pieces(content):
                file.write(piece)
        beside.replace(fname)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read(fname: str | PathLike[str]) -> Any:
    """What a msgpack file holds; synchronous.

    Args:
        fname: The file, by whoever it was written.

    Returns:
        Dicts, lists, numbers, texts, truth values and None; memoryviews of the file's
        content stand for binary data.

    Raises:
        ValueError: it is no msgpack, or has extension types.
        OSError: it cannot be read.
    """
    reader = _Reader(memoryview(Path(fname).read_bytes()))
    try:
        content = reader.item()
    except (struct.error, TypeError, RecursionError) as error:
        raise ValueError(f"this is no msgpack: {error}") from error
    reader.check_end()
    return content


class _Reader:
    """Follows the structure, and copies texts and numbers alone."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._position = 0

    def item(self) -> Any:
        code = self._take(1)[0]
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        if code <= 0x7F or code >= 0xE0:
            return code - 0x100 * (code >= 0xE0)
        if code in _BINARIES:
            return self._take(self._number(_BINARIES[code]))
        if 0xA0 <= code <= 0xBF or code in _TEXTS:
            size = self._number(_TEXTS[code]) if code in _TEXTS else code & 0x1F
            return str(self._take(size), "utf-8")
        if code & 0xF0 == 0x90 or code in _LISTS:
            count = self._number(_LISTS[code]) if code in _LISTS else code & 0x0F
            return [self.item() for _ in range(count)]
        if code & 0xF0 == 0x80 or code in _MAPS:
            count = self._number(_MAPS[code]) if code in _MAPS else code & 0x0F
            return {self.item(): self.item() for _ in range(count)}
        raise ValueError(f"byte {code:#x} at {self._position - 1} is no plain data")

    def check_end(self) -> None:
        """Refuse what comes behind the content."""
        if self._position != len(self._content):
            raise ValueError(f"the content ends at {self._position}, the file does not")

    def _number(self, kind: str) -> Any:
        return struct.unpack(kind, self._take(struct.calcsize(kind)))[0]

    def _take(self, size: int) -> memoryview:
        begin, self._position = self._position, self._position + size
        if self._position > len(self._content):
            raise ValueError(f"the file ends at {len(self._content)}, in its middle")
        return self._content[begin : self._position]


# By the first byte: the type, or that of the length behind it.
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = dict(zip(range(0xCA, 0xD4), [f">{k}" for k in "fdBHIQbhiq"], strict=True))
_BINARIES = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}
_TEXTS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_LISTS = {0xDC: ">H", 0xDD: ">I"}
_MAPS = {0xDE: ">H", 0xDF: ">I"}


def _pieces(value: Any) -> Iterator[bytes | memoryview]:
    if isinstance(value, memoryview):
        yield b"\xc6" + struct.pack(">I", value.nbytes)  # binary data of up to 4 GiB
        yield value
    elif isinstance(value, dict):
        yield msgpack.Packer().pack_map_header(len(value))
        for key, item in value.items():
            yield from _pieces(key)
            yield from _pieces(item)
    elif isinstance(value, list | tuple):
        yield msgpack.Packer().pack_array_header(len(value))
        for item in value:
            yield from _pieces(item)
    else:
        yield msgpack.packb(value)
