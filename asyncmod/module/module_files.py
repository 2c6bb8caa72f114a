"""A Module's checkpoints in MXNet's files: symbol, parameters, optimizer states."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import trio

from asyncmod.interop import mxnet_checkpoint
from asyncmod.module import optimizer_states, parameter_values
from asyncmod.module.core import Core

StrPath = str | PathLike[str]


def file_name(prefix: StrPath, epoch: int) -> str:
    """The files of one epoch begin with this."""
    return f"{fspath(prefix)}-{epoch:04d}"


async def save(
    core: Core,
    prefix: StrPath,
    epoch: int,
    save_optimizer_states: bool,
    remove_amp_cast: bool,
) -> None:
    """See `Module.save_checkpoint`."""
    optimizer_content = None
    arguments: Mapping[str, Any]
    auxiliaries: Mapping[str, Any]
    if save_optimizer_states:
        optimization = core.need_optimizer("save_optimizer_states")
        copied, optimizer_content = await optimization.snapshot(
            core.need_executors("save_checkpoint")
        )
        arguments, auxiliaries = copied.parameters, copied.mean_auxiliaries()
    else:
        arguments, auxiliaries = await parameter_values.get_values(core)
    states = f"{file_name(prefix, epoch)}.states"

    def write() -> None:
        mxnet_checkpoint.write_checkpoint(
            prefix,
            epoch,
            core.definition.symbol,
            arguments,
            auxiliaries,
            remove_amp_cast,
        )
        if optimizer_content is not None:
            optimizer_states.write(states, optimizer_content)

    # All files by one call, so that a cancelled one has written all or none.
    await trio.to_thread.run_sync(write)
    logger = core.module.logger
    mxnet_checkpoint.log_saved(logger, prefix, epoch)
    if save_optimizer_states:
        logger.info('Saved optimizer state to "%s"', states)
