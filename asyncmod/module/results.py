"""What a Module hands out after a batch: outputs, gradients; and its state inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncmod.module import requirements
from asyncmod.module.core import Core
from asyncmod.module.states import check_count, check_one, merged, per_device
from asyncmod.module.user_arrays import face, faces


async def outputs(core: Core, merge_multi_context: bool) -> list[Any]:
    """See `Module.get_outputs`."""
    group = core.need_forward("get_outputs").group
    if merge_multi_context:
        return faces(await group.outputs())
    return [faces(arrays) for arrays in await group.device_outputs()]


async def input_gradients(core: Core, merge_multi_context: bool) -> list[Any]:
    """See `Module.get_input_grads`."""
    bound = core.need_forward("get_input_grads")
    requirements.need_input_gradients(core.module)
    names = [description.name for description in bound.data]
    if merge_multi_context:
        merged = await bound.group.input_gradients()
        return [face(merged[n]) if n in merged else None for n in names]
    parts = await bound.group.device_input_gradients()
    return [faces(parts[n]) if n in parts else None for n in names]


async def gradients(core: Core) -> dict[str, Any]:
    """See `Module.get_grads`."""
    core.need_bound("get_grads")
    group = core.need_executors("get_grads").latest.group
    return {
        name: face(gradient) if isinstance(gradient, np.ndarray) else gradient
        for name, gradient in (await group.gradients()).items()
    }


async def get_states(core: Core, merge_multi_context: bool) -> list[Any]:
    """See `Module.get_states`."""
    core.need_params("get_states")
    group = core.need_executors("get_states").current.group
    states = await group.get_states()
    if merge_multi_context:
        return faces(merged(group, states))
    return [faces(parts) for parts in states.values()]


async def set_states(core: Core, states: Any, value: float | None) -> None:
    """See `Module.set_states`."""
    core.need_params("set_states")
    check_one(states, value)
    group = core.need_executors("set_states").current.group
    parts = None
    if states is not None:
        check_count(states, core.definition.state_names)
        parts = per_device(group, states)
    await group.set_states(parts, value)
