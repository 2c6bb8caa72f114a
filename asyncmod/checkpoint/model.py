"""A model in a checkpoint file: symbol, parameters and auxiliary states alone.

A training's checkpoint holds these, too, so that its model can be read from it; its
auxiliary states are then the mean over the devices, as everywhere at the face.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import numpy as np

from asyncmod.checkpoint.header import Header
from asyncmod.checkpoint.mapped_file import Verify, open_checkpoint
from asyncmod.checkpoint.writer import write_checkpoint
from asyncmod.errors import CheckpointError
from asyncmod.nd import NDArray
from asyncmod.symbol import Symbol, load_json
from runtime.executor.sums import mean

SCHEMA = "model"
Values = dict[str, NDArray]


def write_model(
    path: str | PathLike[str],
    symbol: Symbol | None,
    arg_params: Mapping[str, Any],
    aux_params: Mapping[str, Any],
    epoch: int = 0,
) -> None:
    """Write a model, which appears whole or not at all; synchronous.

    Args:
        path: The file.
        symbol: Its graph; None leaves it out.
        arg_params: Parameters by name.
        aux_params: Auxiliary states by name.
        epoch: How many epochs it was trained.

    Raises:
        CheckpointError: the file cannot be written, or has no such dtype.
    """
    text = b"" if symbol is None else symbol.tojson(remove_amp_cast=False).encode()
    tensors = {"symbol": np.frombuffer(text, np.uint8)}
    tensors |= {f"parameter/{n}": np.asarray(a) for n, a in arg_params.items()}
    tensors |= {f"auxiliary/0/{n}": np.asarray(a) for n, a in aux_params.items()}
    run = secrets.token_hex(8)
    header = Header(SCHEMA, run, time.time(), epoch=epoch, batch=0, step=0)
    write_checkpoint(path, header, tensors)


def read_model(
    path: str | PathLike[str], verify: Verify = "full"
) -> tuple[Symbol | None, Values, Values]:
    """Read a model, or the model in a training's checkpoint; synchronous.

    Args:
        path: The file.
        verify: See `open_checkpoint`.

    Returns:
        The symbol (None if there is none), parameters and auxiliary states. Arrays are
        read-only views of the mapped file; means over several devices are fresh.

    Raises:
        CheckpointError: the file is damaged or holds no model.
        GraphError: the symbol in it is none.
    """
    file = open_checkpoint(path, verify)
    if "symbol" not in file:
        raise CheckpointError(
            f"{fspath(path)} holds no model but {file.header.schema!r}: a chain of "
            "modules is read by resuming its training"
        )
    arguments: Values = {}
    auxiliaries: dict[str, list[Any]] = {}
    for key in file:
        kind, _, name = key.partition("/")
        if kind == "parameter":
            arguments[name] = file[key].view(NDArray)
        elif kind == "auxiliary":
            auxiliaries.setdefault(name.partition("/")[2], []).append(file[key])
    text = bytes(file["symbol"]).decode()
    means = {name: mean(parts).view(NDArray) for name, parts in auxiliaries.items()}
    return load_json(text) if text else None, arguments, means
