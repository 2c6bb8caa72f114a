"""Checkpoints in MXNet's files: `PREFIX-symbol.json` and `PREFIX-NNNN.params`."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from asyncmod import log
from asyncmod.interop.mxnet_params import (
    InvalidParameterFileError,
    load_params,
    save_params,
)
from asyncmod.nd import NDArray
from asyncmod.symbol import Symbol
from asyncmod.symbol import load as load_symbol

StrPath = str | PathLike[str]
Values = dict[str, NDArray]


def load_checkpoint(prefix: StrPath, epoch: int) -> tuple[Symbol, Values, Values]:
    """Read a checkpoint; synchronous: `Module.load` does the same off the loop.

    Args:
        prefix: What the file names begin with.
        epoch: The number in `PREFIX-NNNN.params`.

    Returns:
        The symbol, its arguments and its auxiliary states.

    Raises:
        OSError: a file cannot be read (InvalidParameterFileError: or is damaged).
        GraphError: the symbol file holds no symbol.
    """
    prefix = fspath(prefix)
    symbol = load_symbol(f"{prefix}-symbol.json")
    arguments, auxiliaries = read_parameters(f"{prefix}-{epoch:04d}.params")
    return symbol, arguments, auxiliaries


def save_checkpoint(
    prefix: StrPath,
    epoch: int,
    symbol: Symbol | None,
    arg_params: Mapping[str, Any],
    aux_params: Mapping[str, Any],
    remove_amp_cast: bool = True,
) -> None:
    """Write a checkpoint that MXNet reads, and log where; synchronous.

    `Module.save_checkpoint` does the same off the loop.

    Args:
        prefix: What the file names begin with.
        epoch: The number in `PREFIX-NNNN.params`.
        symbol: Written to `PREFIX-symbol.json`; None writes no such file.
        arg_params: Arguments by name.
        aux_params: Auxiliary states by name.
        remove_amp_cast: Leave casts of automatic mixed precision out of the symbol.

    Raises:
        OSError: a file cannot be written.
    """
    write_checkpoint(prefix, epoch, symbol, arg_params, aux_params, remove_amp_cast)
    log_saved(log.DEFAULT, prefix, epoch)


def log_saved(logger: log.Logger, prefix: StrPath, epoch: int) -> None:
    """Log, as MXNet does, that a checkpoint was written."""
    logger.info('Saved checkpoint to "%s"', f"{fspath(prefix)}-{epoch:04d}.params")


def write_checkpoint(
    prefix: StrPath,
    epoch: int,
    symbol: Symbol | None,
    arg_params: Mapping[str, Any],
    aux_params: Mapping[str, Any],
    remove_amp_cast: bool = True,
) -> None:
    """`save_checkpoint` without a word, for threads."""
    prefix = fspath(prefix)
    if symbol is not None:
        symbol.save(f"{prefix}-symbol.json", remove_amp_cast)
    write_parameters(f"{prefix}-{epoch:04d}.params", arg_params, aux_params)


def read_parameters(path: StrPath) -> tuple[Values, Values]:
    """Arguments and auxiliary states in a `.params` file.

    Raises:
        InvalidParameterFileError: the file is damaged, or a key begins neither with
            `arg:` nor with `aux:`.
    """
    parts: dict[str, Values] = {"arg": {}, "aux": {}}
    for key, array in load_params(path).items():
        kind, _, name = key.partition(":")
        if kind not in parts or not name:
            raise InvalidParameterFileError(
                f"Invalid param file {fspath(path)}: the key {key!r} begins neither "
                "with `arg:` nor with `aux:`"
            )
        parts[kind][name] = array
    return parts["arg"], parts["aux"]


def write_parameters(
    path: StrPath, arg_params: Mapping[str, Any], aux_params: Mapping[str, Any]
) -> None:
    """Write arguments and auxiliary states to a `.params` file."""
    content = {f"arg:{name}": array for name, array in arg_params.items()}
    content.update({f"aux:{name}": array for name, array in aux_params.items()})
    save_params(path, content)
