"""`mx.model`: checkpoints without a module, under their old names."""

from __future__ import annotations

from os import PathLike, fspath
from typing import NoReturn

from asyncmod.absent import ABSENT, refuse
from asyncmod.interop.mxnet_checkpoint import (
    load_checkpoint,
    read_parameters,
    save_checkpoint,
)
from asyncmod.module.callbacks import BatchEndParam
from asyncmod.nd import NDArray

__all__ = ["BatchEndParam", "load_checkpoint", "load_params", "save_checkpoint"]


def load_params(
    prefix: str | PathLike[str], epoch: int
) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """The arguments and auxiliary states in `PREFIX-NNNN.params`; synchronous.

    Raises:
        OSError: the file cannot be read (InvalidParameterFileError: or is damaged).
    """
    return read_parameters(f"{fspath(prefix)}-{epoch:04d}.params")


def __getattr__(name: str) -> NoReturn:
    """FeedForward is not here, and the error says what is."""
    if name in ABSENT:
        raise refuse(f"mx.model.{name}", name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
