"""What a Module does with a batch: forward, backward, update, all of it in one step.

`step` checks names and shapes against the bound ones (`Bound.match_batch`), then one
call of the executor group slices the batch over the devices. Other shapes lead to
another group with the same parameters (`Executors.route`).

Next: `asyncmod.module.executors`, then `runtime.executor.group`.
"""

from __future__ import annotations

from typing import Any

from asyncmod.errors import InputError, ModuleStateError
from asyncmod.module.batches import Array, as_array
from asyncmod.module.core import Core
from asyncmod.module.executors import Executors
from asyncmod.module.optimization import Optimization
from asyncmod.module.step import Step
from runtime.executor.accumulation import Part


async def forward(core: Core, batch: Any, is_train: bool | None) -> None:
    """See `Module.forward`."""
    module, executors = core.module, core.executors
    if executors is None or not module.params_initialized:
        core.need_params("forward")
        executors = core.need_executors("forward")
    training = module.for_training if is_train is None else is_train
    if training:
        core.need_training("forward(is_train=True)")
    bound = executors.current
    inputs = bound.match_batch(batch, training)
    if inputs is None:
        bound, inputs = await executors.route(batch, training)
    recording = core.monitoring.begin()
    bound.users += 1
    try:
        await bound.group.forward(inputs, training, recording)
    finally:
        bound.users -= 1
    executors.ran(bound, training)
    if recording is not None:
        recording.deliver()


async def backward(core: Core, out_grads: Any) -> None:
    """See `Module.backward`."""
    core.need_params("backward")
    core.need_training("backward")
    executors = core.need_executors("backward")
    bound = executors.forwarded
    if bound is None or not executors.forwarded_in_training:
        raise ModuleStateError(
            "`backward` needs a forward in training mode before it: "
            "`await mod.forward(batch, is_train=True)`"
        )
    heads: dict[str, Array] | None = None
    if out_grads is not None:
        heads = _named_heads(out_grads, core.module.output_names)
    recording = core.monitoring.begin()
    await bound.group.backward(heads, recording)
    if recording is not None:
        recording.deliver()


async def update(core: Core, part: Part | None = None) -> None:
    """See `Module.update`; with a part, add gradients up and update as it says."""
    optimization = core.need_optimizer("update")
    core.need_training("update")
    group = core.need_executors("update").latest.group
    await group.update(optimization.updater_for(part), part)


async def step(core: Core, batch: Any) -> None:
    """See `Module.step`."""
    executors, optimization = _ready_to_train(core, "step")
    bound = executors.current
    inputs = bound.match_batch(batch, True)
    if inputs is None:
        bound, inputs = await executors.match(batch, True)
    recording = core.monitoring.begin()
    bound.users += 1
    try:
        await bound.group.step(inputs, optimization.updater, recording)
    finally:
        bound.users -= 1
    executors.ran(bound, True)
    if recording is not None:
        recording.deliver()


async def dispatch_step(
    core: Core, batch: Any, part: Part | None, outputs: bool
) -> Step:
    """Begin a step, or a part of one, and return while it is under way."""
    executors, optimization = _ready_to_train(core, "fit")
    updater = optimization.updater_for(part)
    bound = executors.current
    inputs = bound.match_batch(batch, True)
    if inputs is None:
        bound, inputs = await executors.match(batch, True)
    bound.users += 1
    try:
        if updater.shares is not None:
            await bound.group.prepare(updater)
        await bound.group.acquire_slot()
    finally:
        bound.users -= 1
    recording = core.monitoring.begin()
    pending = bound.group.dispatch_step(
        inputs, updater, observe=recording, part=part, outputs=outputs
    )
    pending.on_withdrawn = executors.way_back(bound)
    executors.ran(bound, True)
    if recording is not None:
        await recording.complete(pending)
    return pending


async def dispatch_predict(core: Core, batch: Any) -> Step:
    """Begin an inference forward, in buffers of its own."""
    executors = core.need_executors("forward")
    bound, inputs = await executors.match(batch, False)
    return bound.group.dispatch_predict(inputs)


async def zero_gradients(core: Core) -> None:
    """See `Module.zero_grad`."""
    core.need_bound("zero_grad")
    await core.need_executors("zero_grad").latest.group.zero_gradients()


async def synchronize(core: Core) -> None:
    """Give the auxiliary states of all devices their mean."""
    if len(core.definition.contexts) < 2:
        return
    group = core.need_executors("fit").first.group
    if group.auxiliary_names:
        _, auxiliaries = await group.read_parameters()
        await group.write_parameters({}, auxiliaries)


def _ready_to_train(core: Core, call: str) -> tuple[Executors, Optimization]:
    """What a step needs; on the path of every step, so it looks closer only if not."""
    executors, optimization = core.executors, core.optimization
    if executors is None or optimization is None or not executors.template.for_training:
        optimization = core.need_optimizer(call)
        core.need_training(call)
        executors = core.need_executors(call)
    return executors, optimization


def _named_heads(out_grads: Any, names: list[str]) -> dict[str, Array]:
    """`out_grads` by the name of the output; None stands for one that needs none."""
    gradients = list(out_grads) if isinstance(out_grads, list | tuple) else [out_grads]
    if len(gradients) != len(names):
        raise InputError(
            f"`out_grads` has {len(gradients)} arrays for {len(names)} outputs: "
            f"{', '.join(names)}"
        )
    return {
        name: as_array(f"out_grads of {name}", gradient)
        for name, gradient in zip(names, gradients, strict=True)
        if gradient is not None
    }
