"""The values of a Module's parameters: set, all at once, and read.

Next: `asyncmod.module.parameters` for which values these are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import trio

from asyncmod.module import parameters
from asyncmod.module.batches import Array
from asyncmod.module.core import Core
from asyncmod.module.user_arrays import Parameters, copies, named_faces


async def set_values(
    core: Core,
    initializer: Any,
    arg_params: Mapping[str, Any] | None,
    aux_params: Mapping[str, Any] | None,
    allow_missing: bool,
    force_init: bool,
    allow_extra: bool,
) -> None:
    """See `Module.init_params`; without an initializer what is missing is kept."""
    core.need_bound("init_params")
    async with core.changing:
        if core.module.params_initialized and not force_init:
            warnings.warn(
                "Parameters already initialized and force_init=False. init_params "
                "call ignored.",
                stacklevel=3,
            )
            return
        group = core.need_executors("init_params").first.group
        arguments, auxiliaries = core.definition.slots(group)
        if not allow_extra:
            parameters.check_extra(arg_params, arguments.shapes)
            parameters.check_extra(aux_params, auxiliaries.shapes)

        def make() -> tuple[dict[str, Array], dict[str, Array]]:
            return (
                parameters.first_values(
                    arguments, arg_params, initializer, allow_missing
                ),
                parameters.first_values(
                    auxiliaries, aux_params, initializer, allow_missing
                ),
            )

        values = await trio.to_thread.run_sync(make)
        await group.write_parameters(*values)
        core.module.params_initialized = True


async def get_values(core: Core) -> tuple[Parameters, Parameters]:
    """See `Module.get_params`."""
    if not core.module.params_initialized:
        core.need_params("get_params")
    if core.loaded is not None:
        return await trio.to_thread.run_sync(copies, *core.loaded)
    group = core.need_executors("get_params").first.group
    arguments, auxiliaries = await group.read_parameters()
    return named_faces(arguments), named_faces(auxiliaries)
