"""The state of a Module's training: gathered between two steps, and put back.

Put back into a module of the same symbol on as many devices, training goes on bit for
bit. Names of the arrays are `parameter/NAME`, `auxiliary/DEVICE/NAME` with the device's
position, `optimizer/STATE/NAME`, `symbol` and `carried/...` for what each device
carries from step to step besides, each after a prefix.

Next: `asyncmod.module.carried`, `runtime.executor.snapshot` for the copy, and
`asyncmod.checkpoint.staging` for its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asyncmod.checkpoint.staging import Staging
from asyncmod.checkpoint.tree import put_together, take_apart
from asyncmod.errors import CheckpointError, UnsupportedError
from asyncmod.module import added_input_gradients, carried
from asyncmod.module.inside import State
from asyncmod.module.optimization import Optimization, States
from runtime.executor.group import ExecutorGroup
from runtime.executor.snapshot import StateArray
from runtime.executor.spread import spread
from runtime.executor.sums import mean

if TYPE_CHECKING:
    from asyncmod.module.core import Core

Array = NDArray[Any]
Arrays = Mapping[str, Array]


async def gather(core: Core, staging: Staging, prefix: str = "") -> State:
    """Copy a module's arrays into the staging; returns the rest, as plain data.

    Nothing may be in flight. Cancelled, the staging holds nothing of use.

    Raises:
        ModuleStateError: it is not bound, or has no optimizer.
        UnsupportedError: the user's own optimizer keeps something else than arrays and
            plain data.
    """
    optimization = core.need_optimizer("checkpoint")
    executors = core.need_executors("checkpoint")
    group = executors.first.group
    text = core.definition.symbol.tojson(remove_amp_cast=False)
    staging.put(f"{prefix}symbol", text.encode())

    def place(array: StateArray) -> Array:
        return staging.array(prefix + _name(array), array.shape, array.dtype)

    updater, own = optimization.updater, {}
    if updater.rule is None:
        shares = await group.copy_state(None, place)
        own = await group.read_function_states(updater)
    else:
        shares = await group.copy_state(updater, place)
    return {
        "seed": core.seed,
        "forwards": group.training_forwards,
        "predictions": group.predictions,
        "devices": len(group.spec.devices),
        "optimizer": {
            "name": type(optimization.optimizer).__name__.lower(),
            "state": optimization.optimizer.get_state(),
            "states": list(updater.states),
            "own": _own(optimization, own, staging, f"{prefix}own"),
        },
        "carried": take_apart(
            carried.as_tree(shares), staging.keep, f"{prefix}carried"
        ),
        "input_gradients": take_apart(
            await added_input_gradients.as_tree(executors),
            staging.keep,
            f"{prefix}input_gradient",
        ),
    }


async def put_back(
    core: Core, arrays: Arrays, state: Mapping[str, Any], prefix: str = ""
) -> None:
    """Set what `gather` has gathered; the module is bound and has its optimizer.

    On another number of devices every device gets the mean of the auxiliary states,
    and what devices carry is spread over them; a warning says that training does not go
    on bit for bit.

    Raises:
        CheckpointError: the state is of another module or optimizer.
    """
    executors = core.need_executors("checkpoint")
    optimization = core.need_optimizer("checkpoint")
    group = executors.first.group
    try:
        _check_optimizer(optimization, state["optimizer"])
        parameters = _named(arrays, f"{prefix}parameter/", group.parameter_names)
        await group.write_parameters(parameters, {})
        await _put_back_auxiliaries(core, group, arrays, state["devices"], prefix)
        if "carried" in state:  # else an older version of the library has saved it
            shares = carried.from_tree(put_together(state["carried"], arrays))
            await group.write_carried(spread(shares, group.spec))
        if "input_gradients" in state:
            tree = put_together(state["input_gradients"], arrays)
            await added_input_gradients.put_back(executors, tree)
        states = States(
            _optimizer_states(optimization, arrays, prefix),
            put_together(state["optimizer"]["own"], arrays),
        )
        await optimization.write(executors, states)
        optimization.optimizer.set_state(state["optimizer"]["state"])
        core.reseed(state["seed"])
        group.training_forwards = state["forwards"]
        group.predictions = state.get("predictions", 0)  # older files have none
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"the checkpoint is of another module than this one: {error}"
        ) from error


async def _put_back_auxiliaries(
    core: Core, group: ExecutorGroup, arrays: Arrays, devices: int, prefix: str
) -> None:
    names = group.auxiliary_names
    values = [
        _named(arrays, f"{prefix}auxiliary/{device}/", names)
        for device in range(devices)
    ]
    here = len(group.spec.devices)
    if here != devices:
        core.module.logger.warning(
            "the checkpoint was saved on %d devices, and the module is on %d: training "
            "goes on, but not bit for bit as it would have there",
            devices,
            here,
        )
        merged = {name: mean([part[name] for part in values]) for name in names}
        values = [merged] * here
    await group.write_share_auxiliaries(values)


def _name(array: StateArray) -> str:
    if array.kind == "parameter":
        return f"parameter/{array.name}"
    if array.kind == "auxiliary":
        return f"auxiliary/{array.share}/{array.name}"
    return f"optimizer/{array.kind}/{array.name}"


def _named(arrays: Arrays, prefix: str, names: tuple[str, ...]) -> dict[str, Array]:
    """The arrays of these names; there must be no others.

    Raises:
        KeyError: one is missing, or one too many is there.
    """
    found = {key.removeprefix(prefix) for key in arrays if key.startswith(prefix)}
    for name in sorted(found ^ set(names)):
        where = "the checkpoint" if name in found else "the module"
        raise KeyError(f"only {where} has `{prefix}{name}`")
    return {name: np.asarray(arrays[f"{prefix}{name}"]) for name in names}


def _own(
    optimization: Optimization, states: dict[str, Any], staging: Staging, name: str
) -> Any:
    """What an optimizer without a fused rule keeps, its arrays in the staging."""
    try:
        return take_apart(states, staging.keep, name)
    except TypeError as error:
        raise UnsupportedError(
            f"the states of {type(optimization.optimizer).__name__} cannot be saved: "
            f"{error}"
        ) from error


def _optimizer_states(
    optimization: Optimization, arrays: Arrays, prefix: str
) -> dict[str, dict[str, Array]]:
    """The states of a rule by state name and parameter; some parameters lack some."""
    states: dict[str, dict[str, Array]] = {}
    for state in optimization.updater.states:
        begin = f"{prefix}optimizer/{state}/"
        states[state] = {
            key.removeprefix(begin): np.asarray(arrays[key])
            for key in arrays
            if key.startswith(begin)
        }
    return states


def _check_optimizer(optimization: Optimization, saved: Mapping[str, Any]) -> None:
    name = type(optimization.optimizer).__name__.lower()
    if name != saved["name"]:
        raise CheckpointError(
            f"the checkpoint is of the optimizer {saved['name']!r}, and the module "
            f"uses {name!r}: give optimizer={saved['name']!r}"
        )
    states = list(optimization.updater.states)
    if states != saved["states"]:
        raise CheckpointError(
            f"with these settings {name!r} keeps the states {states}, and in the "
            f"checkpoint are {saved['states']}: give the same optimizer_params"
        )
