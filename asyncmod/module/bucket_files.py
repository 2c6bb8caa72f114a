"""Checkpoints of a BucketingModule, in MXNet's files.

`PREFIX.buckets` is a list file with one int32 vector of keys; `PREFIX-KEY-symbol.json`
holds the symbol of each bucket, `PREFIX-NNNN.params` the parameters of all.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import Any

import numpy as np

from asyncmod.errors import ArgumentError
from asyncmod.interop import mxnet_checkpoint
from asyncmod.interop.mxnet_params import (
    InvalidParameterFileError,
    load_arrays,
    save_arrays,
)
from asyncmod.symbol import Symbol
from asyncmod.symbol import load as load_symbol

StrPath = str | PathLike[str]


def check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys that the format cannot hold.

    Raises:
        ArgumentError: a key is no integer of 32 bits.
    """
    for key in keys:
        try:
            fits = -(2**31) <= operator.index(key) < 2**31
        except TypeError:
            fits = False
        if not fits:
            raise ArgumentError(
                f"the bucket key {key!r} is no 32-bit integer, and a checkpoint of "
                "MXNet's format has no other keys: use `save_params` and `load_params`"
            )


def save(
    prefix: StrPath,
    epoch: int,
    symbols: Mapping[Any, Any],
    arg_params: Mapping[str, Any],
    aux_params: Mapping[str, Any],
    remove_amp_cast: bool,
) -> None:
    """Write all files of a checkpoint; synchronous.

    Raises:
        ArgumentError: see `check_keys`.
        OSError: a file cannot be written.
    """
    check_keys(symbols)
    prefix = fspath(prefix)
    keys = [operator.index(key) for key in symbols]
    mxnet_checkpoint.write_checkpoint(prefix, epoch, None, arg_params, aux_params)
    for key, symbol in zip(keys, symbols.values(), strict=True):
        symbol.save(f"{prefix}-{key}-symbol.json", remove_amp_cast)
    save_arrays(f"{prefix}.buckets", [np.array(keys, np.int32)])


def load(
    prefix: StrPath, epoch: int
) -> tuple[dict[int, Symbol], mxnet_checkpoint.Values, mxnet_checkpoint.Values]:
    """Read symbols by key, arguments and auxiliary states; synchronous.

    Raises:
        OSError: a file cannot be read (InvalidParameterFileError: or is damaged).
        GraphError: a symbol file holds no symbol.
    """
    prefix = fspath(prefix)
    read = load_arrays(f"{prefix}.buckets")
    if not isinstance(read, list) or len(read) != 1 or read[0].dtype.kind not in "iu":
        raise InvalidParameterFileError(
            f"{prefix}.buckets does not hold bucket keys: it must be a list file with "
            "one vector of integers"
        )
    keys = [int(key) for key in read[0].ravel()]
    symbols = {key: load_symbol(f"{prefix}-{key}-symbol.json") for key in keys}
    values = mxnet_checkpoint.read_parameters(f"{prefix}-{epoch:04d}.params")
    return symbols, *values
