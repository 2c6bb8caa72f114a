"""Plain data as a msgpack file, written piece by piece.

msgpack holds the interpreter while it copies. What is large therefore goes past it,
from its array to the file, and all other threads run meanwhile.
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
