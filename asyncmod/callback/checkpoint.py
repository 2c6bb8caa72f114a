"""Epoch-end callbacks that save the model in MXNet's files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from asyncmod.interop.mxnet_checkpoint import save_checkpoint

EpochCallback = Callable[..., Awaitable[None]]


def do_checkpoint(prefix: str, period: int = 1) -> EpochCallback:
    """A callback that saves symbol and parameters every `period` epochs.

    Epoch 0 is saved as `PREFIX-0001.params`: the number says how many epochs were
    trained, and with which `begin_epoch` to go on. Files are written in a thread;
    cancelling waits for it.

    Args:
        prefix: Path and beginning of the files' names.
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
                save_checkpoint, prefix, iter_no + 1, sym, arg or {}, aux or {}
            )

    return callback


def module_checkpoint(
    mod: Any, prefix: str, period: int = 1, save_optimizer_states: bool = False
) -> EpochCallback:
    """A callback that awaits `mod.save_checkpoint` every `period` epochs.

    Args:
        mod: The module.
        prefix: Path and beginning of the files' names.
        period: Epochs between two saves.
        save_optimizer_states: Whether the optimizer's states are saved too.
    """
    period = max(1, int(period))

    async def callback(
        iter_no: int, sym: Any = None, arg: Any = None, aux: Any = None
    ) -> None:
        if (iter_no + 1) % period == 0:
            await mod.save_checkpoint(prefix, iter_no + 1, save_optimizer_states)

    return callback
