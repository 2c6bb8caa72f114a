"""Text files read line by line in worker threads, a moment at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Generic, TypeVar

import trio

from asyncmod.io.table_reader import DataFileError

BLOCK_BYTES = 1 << 18
"""Bytes parsed at once; a parser in C holds the interpreter for so long, some ms."""

LONGEST_LINE = 1 << 26
"""Bytes after which a line without an end is refused."""

MOMENT = 0.05
"""Seconds in a thread between two checks for cancellation."""

T = TypeVar("T")
Line = tuple[int, str]
"""A line's number, from 1, and its text."""


class TextParts(Generic[T]):
    """A text file as parts, each parsed from some of its lines; blank ones are left
    out.

    Args:
        path: The file.
        parse: Makes a part of lines; called in a thread.
    """

    def __init__(self, path: Path, parse: Callable[[Sequence[Line]], T]) -> None:
        self.path = path
        self._parse = parse
        self.forget()

    def forget(self) -> None:
        """Give the memory back; `read` then begins anew."""
        self.found: list[T] = []
        self._offset = 0
        self._lines = 0
        self._finished = False

    async def read(self) -> None:
        """Read to the end into `found`; cancelled, a later call goes on from there.

        Raises:
            DataFileError: a line is too long, `parse` refused one, or there is none.
            OSError: the file cannot be read.
        """
        while not self._finished:
            await trio.to_thread.run_sync(self._read_for_a_moment)
        if not self.found:
            raise DataFileError(f"{self.path} has no rows")

    def _read_for_a_moment(self) -> None:
        until = perf_counter() + MOMENT
        with self.path.open("rb") as file:
            file.seek(self._offset)
            while True:
                block = file.read(BLOCK_BYTES)
                if not block:
                    self._finished = True
                    return
                block += file.readline(LONGEST_LINE)
                texts = self._split(block)
                part = [
                    (number, text)
                    for number, text in enumerate(texts, self._lines + 1)
                    if text and not text.isspace()
                ]
                if part:
                    self.found.append(self._parse(part))
                self._offset += len(block)
                self._lines += len(texts)
                if perf_counter() >= until:
                    return

    def _split(self, block: bytes) -> list[str]:
        """The block's lines, without their ends."""
        if len(block) - block.rfind(b"\n") > LONGEST_LINE:
            number = self._lines + block.count(b"\n") + 1
            raise DataFileError(
                f"{self.path}, line {number}: it is longer than {LONGEST_LINE} bytes; "
                "is this a text file?"
            )
        if not self._offset:
            block = block.removeprefix(b"\xef\xbb\xbf")  # some editors' signature
        texts = block.decode("utf-8", "backslashreplace").split("\n")
        return texts[:-1] if not texts[-1] else texts


def shortened(text: str) -> str:
    """`text` for a message."""
    return repr(text if len(text) <= 40 else text[:40] + "...")
