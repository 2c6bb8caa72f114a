"""Installing an optimizer in a Module, its own or another module's.

Next: `asyncmod.module.optimization`.
"""

from __future__ import annotations

from typing import Any

import trio

from asyncmod.errors import ModuleStateError
from asyncmod.module.core import Core
from asyncmod.module.executors import Executors
from asyncmod.module.optimization import Optimization


async def install(
    core: Core, kvstore: Any, optimizer: Any, optimizer_params: Any, force_init: bool
) -> None:
    """See `Module.init_optimizer`."""
    core.need_params("init_optimizer")
    module = core.module
    async with core.changing:
        if module.optimizer_initialized and not force_init:
            module.logger.warning("optimizer already initialized, ignoring...")
            return
        executors = core.need_executors("init_optimizer")
        new = await Optimization.install(
            executors,
            core.definition.symbol,
            core.definition.parameter_names,
            kvstore,
            optimizer,
            optimizer_params,
        )
        if core.loaded_states is not None:
            try:
                await new.load(executors, core.loaded_states)
            except BaseException:
                await _forget(executors, new)
                raise
            core.loaded_states = None
        old, core.optimization = core.optimization, new
        module.optimizer_initialized = True
        if old is not None:
            await _forget(executors, old)


def borrow(core: Core, shared: Core) -> None:
    """See `Module.borrow_optimizer`."""
    if not shared.module.optimizer_initialized:
        raise ModuleStateError(
            "`borrow_optimizer` needs a module with an optimizer: "
            "`await shared.init_optimizer()` first"
        )
    optimization = shared.need_optimizer("borrow_optimizer")
    core.optimization = optimization.part(core.definition.parameter_names)
    core.module.optimizer_initialized = True


async def _forget(executors: Executors, optimization: Optimization) -> None:
    """Free the states of an optimizer that is not used any more."""
    with trio.CancelScope(shield=True):
        await executors.first.group.forget(optimization.updater)
