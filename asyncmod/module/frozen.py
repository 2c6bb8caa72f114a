"""A module's values of one moment in a module of their own.

For predictions that take long beside a training: all of them then use the parameters
that stood between the same two steps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np

from asyncmod.module.batches import Array
from runtime.executor.snapshot import Carried, StateArray

if TYPE_CHECKING:
    from asyncmod.module.module import Module


@asynccontextmanager
async def frozen(module: Module, twin: Module) -> AsyncIterator[Module]:
    """Let `twin` have copies of the module's values for the body of an `async with`.

    It runs on the same devices, so that its calls queue up with those of the module;
    its memory is its own, and is freed at the end.

    Args:
        module: Bound and with parameters.
        twin: Of the same symbol and contexts, not bound.
    """
    group = module.core.need_executors("predict").current.group
    parameters: dict[str, Array] = {}
    shares: list[dict[str, Array]] = [{} for _ in group.spec.devices]

    def place(array: StateArray) -> Array:
        values = parameters if array.kind == "parameter" else shares[array.share]
        return values.setdefault(array.name, np.empty(array.shape, array.dtype))

    carried = await group.copy_state(None, place)
    async with twin:
        await twin.bind(module.data_shapes, for_training=False)
        copy = twin.core.need_executors("predict").current.group
        copy.seed, copy.predictions = group.seed, group.predictions
        # The module may share its memory with other graphs.
        ours = [{n: part[n] for n in copy.auxiliary_names} for part in shares]
        await twin.set_params({n: parameters[n] for n in copy.parameter_names}, ours[0])
        await copy.write_share_auxiliaries(ours)
        await copy.write_carried([Carried(share.states) for share in carried])
        yield twin
