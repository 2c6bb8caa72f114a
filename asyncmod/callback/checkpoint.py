"""Epoch-end callbacks that save the model, in MXNet's files or in our own format."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import trio

from asyncmod import log
from asyncmod.errors import ArgumentError
from asyncmod.interop.mxnet_checkpoint import log_saved, write_checkpoint

EpochCallback = Callable[..., Awaitable[None]]
Format = Literal["mxnet", "asyncmod"]


def do_checkpoint(
    prefix: str, period: int = 1, *, format: Format = "mxnet"
) -> EpochCallback:
    """A callback that saves symbol and parameters every `period` epochs.

    Epoch 0 is saved as `PREFIX-0001.params` beside `PREFIX-symbol.json`, or with
    `format="asyncmod"` as `PREFIX-0001.asyncmod`, which `mx.checkpoint.read_model`
    reads: the number says how many epochs were trained, and with which `begin_epoch` to
    go on. Files are written in a thread; cancelling waits for it. To interrupt a
    training and go on exactly, use `fit(checkpoint=...)` instead.

    Args:
        prefix: Path and beginning of the files' names.
        period: Epochs between two saves.
        format: Whose files.

    Raises:
        ArgumentError: an unknown format.
    """
    _check(format)
    period = max(1, int(period))

    async def callback(
        iter_no: int,
        sym: Any = None,
        arg: Mapping[str, Any] | None = None,
        aux: Mapping[str, Any] | None = None,
    ) -> None:
        number = iter_no + 1
        if number % period == 0:
            values = arg or {}, aux or {}
            if format == "mxnet":
                await log.prepare(log.DEFAULT)
                await trio.to_thread.run_sync(
                    write_checkpoint, prefix, number, sym, *values
                )
                log_saved(log.DEFAULT, prefix, number)
            else:
                await _write_model(prefix, number, sym, *values)

    return callback


def module_checkpoint(
    mod: Any,
    prefix: str,
    period: int = 1,
    save_optimizer_states: bool = False,
    *,
    format: Format = "mxnet",
) -> EpochCallback:
    """A callback that saves a module every `period` epochs; see `do_checkpoint`.

    In MXNet's format it awaits `mod.save_checkpoint`.

    Args:
        mod: The module.
        prefix: Path and beginning of the files' names.
        period: Epochs between two saves.
        save_optimizer_states: Whether the optimizer's states are saved too, as
            `PREFIX-NNNN.states`.
        format: Whose files.

    Raises:
        ArgumentError: an unknown format.
    """
    _check(format)
    period = max(1, int(period))

    async def callback(
        iter_no: int, sym: Any = None, arg: Any = None, aux: Any = None
    ) -> None:
        number = iter_no + 1
        if number % period == 0:
            if format == "mxnet":
                await mod.save_checkpoint(prefix, number, save_optimizer_states)
                return
            await _write_model(prefix, number, mod.symbol, *await mod.get_params())
            if save_optimizer_states:
                await mod.save_optimizer_states(f"{prefix}-{number:04d}.states")

    return callback


async def _write_model(
    prefix: str, number: int, symbol: Any, arg: Any, aux: Any
) -> None:
    from asyncmod.checkpoint import write_model

    path = f"{prefix}-{number:04d}.asyncmod"
    await trio.to_thread.run_sync(write_model, path, symbol, arg, aux, number)


def _check(format: str) -> None:
    if format not in ("mxnet", "asyncmod"):
        raise ArgumentError(f"`format` is {format!r}: use 'mxnet' or 'asyncmod'")
