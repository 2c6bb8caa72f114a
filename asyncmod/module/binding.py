"""Binding a Module: executors for its shapes, with the values that it has.

Next: `asyncmod.module.executors`.
"""

from __future__ import annotations

from typing import Any

import trio

from asyncmod import random
from asyncmod.errors import ArgumentError, ArgumentTypeError, ModuleStateError
from asyncmod.module import parameters
from asyncmod.module.core import Core
from asyncmod.module.descriptions import batch_size, check_described, parse_shapes
from asyncmod.module.executors import Executors
from asyncmod.module.optimization import Optimization


async def bind(
    core: Core,
    data_shapes: Any,
    label_shapes: Any = None,
    for_training: bool = True,
    inputs_need_grad: bool = False,
    force_rebind: bool = False,
    shared_module: Any = None,
    grad_req: Any = "write",
) -> None:
    """See `Module.bind`; if it fails or is cancelled, the module stays as it was."""
    module, definition = core.module, core.definition
    runtime = module.scope.runtime("bind")
    async with core.changing:
        if module.binded and not force_rebind:
            module.logger.warning("Already bound, ignoring bind()")
            return
        check_training(for_training, inputs_need_grad)
        data = parse_shapes("data_shapes", data_shapes)
        labels = parse_shapes("label_shapes", label_shapes)
        check_described("data", data, definition.data_names, True)
        if labels:
            check_described("label", labels, definition.label_names, False)
        batch_size([*data, *labels])
        shared = None if shared_module is None else _shared(core, shared_module)
        if core.seed is None:
            core.seed = random.draw_seed()
        template = definition.template(
            data=[d.name for d in data],
            for_training=for_training,
            inputs_need_grad=inputs_need_grad,
            grad_req=grad_req,
            seed=core.seed,
            in_flight=module.in_flight_limit,
        )
        group = None if shared is None else shared.first.group
        executors = await Executors.create(template, runtime, data, labels, group)
        optimization = core.optimization
        try:
            module.scope.check_open("bind")  # it may have been closed meanwhile
            if shared is None and module.params_initialized:
                optimization = await _carry_over(core, executors)
        except BaseException:
            with trio.CancelScope(shield=True):
                await executors.aclose()
            raise
        old, core.executors = core.executors, executors
        core.optimization = optimization
        module.binded = True
        module.for_training = for_training
        module.inputs_need_grad = inputs_need_grad
        core.loaded = None
        if shared is not None:
            module.params_initialized = True
            if shared_module.optimizer_initialized:
                module.borrow_optimizer(shared_module)
        if old is not None:
            with trio.CancelScope(shield=True):
                await old.aclose()


async def reshape(core: Core, data_shapes: Any, label_shapes: Any) -> None:
    """See `Module.reshape`."""
    core.need_bound("reshape")
    data = parse_shapes("data_shapes", data_shapes)
    labels = parse_shapes("label_shapes", label_shapes)
    check_described("data", data, core.definition.data_names, True)
    batch_size([*data, *labels])
    async with core.changing:
        executors = core.need_executors("reshape")
        executors.use(await executors.reshaped(data, labels))


def check_training(for_training: bool, inputs_need_grad: bool) -> None:
    """Raise ArgumentError if gradients are wanted without training."""
    if inputs_need_grad and not for_training:
        raise ArgumentError(
            "inputs_need_grad=True needs for_training=True: without training "
            "there are no gradients"
        )


def _shared(core: Core, shared_module: Any) -> Executors:
    """The executors of the module to share parameters with."""
    if not isinstance(getattr(shared_module, "core", None), Core):
        raise ArgumentTypeError(
            f"`shared_module` must be a Module, not {type(shared_module).__name__}"
        )
    if not (shared_module.binded and shared_module.params_initialized):
        raise ModuleStateError(
            "`shared_module` must be bound and initialized before it is shared: "
            "`await shared.bind(...)`, then `await shared.init_params()`"
        )
    shared: Core = shared_module.core
    core.definition.check_shared(shared.definition)
    return shared.need_executors("bind")


async def _carry_over(core: Core, executors: Executors) -> Optimization | None:
    """Copy values into new executors: from a checkpoint, or from the old ones."""
    new = executors.first.group
    if core.loaded is not None:
        slots = core.definition.slots(new)
        for slot, given in zip(slots, core.loaded, strict=True):
            parameters.check_extra(given, slot.shapes)
        await new.write_parameters(
            *(
                parameters.first_values(slot, given, None, allow_missing=False)
                for slot, given in zip(slots, core.loaded, strict=True)
            )
        )
        return None
    old = core.need_executors("bind")
    await new.write_parameters(*await old.first.group.read_parameters())
    new.training_forwards = old.first.group.training_forwards
    new.predictions = old.first.group.predictions
    if core.optimization is None:
        return None
    return await core.optimization.moved(old, executors)
