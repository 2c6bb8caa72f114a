"""Arguments of the file iterators, which MXNet takes as strings too."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from runtime.errors import AsyncmodError

FilePath = str | PathLike[str]
Shape = tuple[int, ...]


class FileArgumentError(AsyncmodError, ValueError):
    """An argument of a file iterator has a value that cannot be."""


def as_shape(name: str, value: Any) -> Shape:
    """A shape from a tuple, a number, or their text, such as "(3, 28, 28)"."""
    given = _read(value)
    sizes = tuple(given) if isinstance(given, Sequence) else (given,)
    if not sizes or not all(_is_integer(size) and size > 0 for size in sizes):
        raise FileArgumentError(
            f"`{name}` must be a tuple of positive integers, not {value!r}"
        )
    return tuple(int(size) for size in sizes)


def as_integer(name: str, value: Any, least: int) -> int:
    """An integer of at least `least`, or its text."""
    given = _read(value)
    if not _is_integer(given) or given < least:
        raise FileArgumentError(
            f"`{name}` must be an integer of at least {least}, not {value!r}"
        )
    return int(given)


def as_flag(name: str, value: Any) -> bool:
    """True or False, from a bool, 0 or 1, or their text."""
    given = _read(value.capitalize() if isinstance(value, str) else value)
    if given not in (0, 1):
        raise FileArgumentError(f"`{name}` must be True or False, not {value!r}")
    return bool(given)


def as_part(num_parts: Any, part_index: Any) -> tuple[int, int]:
    """How many parts there are, and which is wanted."""
    parts = as_integer("num_parts", num_parts, 1)
    part = as_integer("part_index", part_index, 0)
    if part >= parts:
        raise FileArgumentError(
            f"`part_index` must be less than num_parts={parts}, and it is {part}"
        )
    return parts, part


def as_file(name: str, value: FilePath) -> Path:
    """The path of a file that is there.

    Raises:
        FileNotFoundError: it is not.
    """
    path = Path(value)
    if not path.is_file():
        raise FileNotFoundError(f"`{name}`: there is no file {path}")
    return path.absolute()  # it is read later, perhaps from another folder


def as_optional_file(name: str, value: FilePath | None) -> Path | None:
    """Likewise; None and MXNet's "NULL" mean that there is none."""
    return None if value is None or value == "NULL" else as_file(name, value)


def part_of(count: int, parts: int, part: int) -> slice:
    """Rows of one part out of `parts`, none of which differs by more than one row."""
    return slice(count * part // parts, count * (part + 1) // parts)


def _read(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _is_integer(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
