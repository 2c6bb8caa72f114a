"""Checkpoints of nets with cells: their weights are saved gate by gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import trio

from asyncmod.callback.checkpoint import EpochCallback
from asyncmod.interop.mxnet_checkpoint import load_checkpoint, save_checkpoint
from asyncmod.nd import NDArray
from asyncmod.rnn.base import BaseRNNCell
from asyncmod.symbol import Symbol

Cells = BaseRNNCell | Sequence[BaseRNNCell]
StrPath = str | PathLike[str]


def save_rnn_checkpoint(
    cells: Cells,
    prefix: StrPath,
    epoch: int,
    symbol: Symbol | None,
    arg_params: Mapping[str, Any],
    aux_params: Mapping[str, Any],
) -> None:
    """`mx.model.save_checkpoint` with the weights of cells unpacked; synchronous.

    Args:
        cells: A cell of the net, or several.
        prefix: What the file names begin with.
        epoch: The number in `PREFIX-NNNN.params`.
        symbol: Written to `PREFIX-symbol.json`; None writes no such file.
        arg_params: Arguments by name, as a module has them.
        aux_params: Auxiliary states by name.

    Raises:
        OSError: a file cannot be written.
    """
    arguments = dict(arg_params)
    for cell in _several(cells):
        arguments = dict(cell.unpack_weights(arguments))
    save_checkpoint(prefix, epoch, symbol, arguments, aux_params)


def load_rnn_checkpoint(
    cells: Cells, prefix: StrPath, epoch: int
) -> tuple[Symbol, dict[str, NDArray], dict[str, NDArray]]:
    """Read what `save_rnn_checkpoint` wrote; synchronous.

    Args:
        cells: The cells that were given to it.
        prefix: What the file names begin with.
        epoch: The number in `PREFIX-NNNN.params`.

    Returns:
        The symbol, its arguments and its auxiliary states, as a module takes them.

    Raises:
        OSError: a file cannot be read (InvalidParameterFileError: or is damaged).
    """
    symbol, arguments, auxiliaries = load_checkpoint(prefix, epoch)
    packed: dict[str, Any] = arguments
    for cell in _several(cells):
        packed = dict(cell.pack_weights(packed))
    return symbol, packed, auxiliaries


def do_rnn_checkpoint(cells: Cells, prefix: StrPath, period: int = 1) -> EpochCallback:
    """An epoch-end callback that calls `save_rnn_checkpoint` every `period` epochs.

    Files are written in a thread; cancelling waits for it.

    Args:
        cells: A cell of the net, or several.
        prefix: What the file names begin with.
        period: Epochs between two saves.
    """
    period = max(1, int(period))

    async def callback(
        iter_no: int,
        sym: Any = None,
        arg: Mapping[str, Any] | None = None,
        aux: Mapping[str, Any] | None = None,
    ) -> None:
        if (iter_no + 1) % period == 0:
            await trio.to_thread.run_sync(
                save_rnn_checkpoint,
                *(cells, prefix, iter_no + 1, sym, arg or {}, aux or {}),
            )

    return callback


def _several(cells: Cells) -> Sequence[BaseRNNCell]:
    return [cells] if isinstance(cells, BaseRNNCell) else cells
