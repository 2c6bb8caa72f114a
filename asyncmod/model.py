"""`mx.model`: checkpoints in MXNet's files, without a module.

A checkpoint is `PREFIX-symbol.json` and `PREFIX-NNNN.params`.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from asyncmod.interop.mxnet_params import load_params, save_params
from asyncmod.module.callbacks import BatchEndParam
from asyncmod.module.parameters import join_file, split_file
from asyncmod.nd import NDArray
from asyncmod.symbol import Symbol
from asyncmod.symbol import load as load_symbol

__all__ = ["BatchEndParam", "load_checkpoint", "save_checkpoint"]

Prefix = str | PathLike[str]


def load_checkpoint(
    prefix: Prefix, epoch: int
) -> tuple[Symbol, dict[str, NDArray], dict[str, NDArray]]:
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
    prefix: Prefix,
    epoch: int,
    symbol: Symbol | None,
    arg_params: Mapping[str, Any],
    aux_params: Mapping[str, Any],
    remove_amp_cast: bool = True,
) -> None:
    """Write a checkpoint that MXNet reads; synchronous, see `Module.save_checkpoint`.

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
    prefix = fspath(prefix)
    if symbol is not None:
        symbol.save(f"{prefix}-symbol.json", remove_amp_cast)
    save_params(f"{prefix}-{epoch:04d}.params", join_file(arg_params, aux_params))


def read_parameters(path: Prefix) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Arguments and auxiliary states in a `.params` file.

    Raises:
        InvalidParameterFileError: the file is damaged, or has other keys.
    """
    return split_file(path, load_params(path))
