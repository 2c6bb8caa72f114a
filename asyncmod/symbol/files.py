"""Symbols in files."""

from __future__ import annotations

import os
from pathlib import Path

from asyncmod.errors import ArgumentTypeError
from asyncmod.symbol import json_reader, json_records
from asyncmod.symbol.symbol import Symbol
from runtime.errors import GraphError


def load_json(json_str: str) -> Symbol:
    """Read a symbol from MXNet's JSON, of any version.

    Raises:
        ArgumentTypeError: the argument is not a string.
        GraphError: the text is not a symbol; names node and field.
        OperatorError: unknown operators (all are listed) or wrong attributes.
    """
    if not isinstance(json_str, str):
        raise ArgumentTypeError(
            f"`json_str` must be a string, not {type(json_str).__name__}"
        )
    return Symbol(json_reader.loads(json_str).outputs)


def load(fname: str | os.PathLike[str]) -> Symbol:
    """Read a symbol from a file such as `prefix-symbol.json`.

    Raises:
        OSError: the file cannot be read.
        GraphError: the file is not a symbol; see `load_json`.
    """
    path = Path(fname)
    with path.open("rb") as file:
        data = file.read(4 * json_records.MAXIMUM_LENGTH + 1)
    try:
        return load_json(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise GraphError(f"{path}: not a symbol: {error}") from None
    except GraphError as error:
        raise type(error)(f"{path}: {error}") from None
