"""States of an optimizer, between the devices and the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from runtime.executor.access import Access
from runtime.executor.checks import check_arrays
from runtime.executor.collective import Update
from runtime.executor.staged import AnyReplica

Array = NDArray[Any]
Arrays = dict[str, Array]


async def read_rule_states(access: Access, update: Update) -> dict[str, Arrays]:
    """States of a rule by state name and parameter, from those that keep them."""

    def read(replica: AnyReplica) -> dict[str, Arrays]:
        return update.programs.read_states(replica.index)

    def combine(parts: list[dict[str, Arrays]]) -> dict[str, Arrays]:
        names = update.updater.parameters
        return {
            state: {n: found[n] for n in names if n in found}
            for state in update.updater.states
            if any(state in part for part in parts)
            for found in (_joined([part.get(state, {}) for part in parts]),)
        }

    return await access.gather(read, combine)


async def write_rule_states(
    access: Access,
    update: Update,
    states: Mapping[str, Mapping[str, Array]],
    recount: Callable[[], None] | None = None,
) -> None:
    """Set states of a rule.

    With `recount` the command cannot be withdrawn. It is called as the command is
    enqueued: steps before have counted as they did, those behind go on from what it
    sets.
    """
    updater, tensors = update.updater, access.memory.parameters.tensors
    shapes = {name: tensors[name].shape for name in updater.parameters}
    checked: dict[str, Arrays] = {}
    for state, values in states.items():
        if state not in updater.states:
            raise KeyError(
                f"`{state}` is no state of the optimizer; there are "
                f"{', '.join(updater.states) or 'none'}"
            )
        checked[state] = check_arrays(f"{state} of parameter", values, shapes)

    def run(replica: AnyReplica) -> None:
        update.programs.write_states(replica.index, checked)

    def at_once() -> None:
        assert recount is not None
        recount()
        update.numbers.begin_anew()

    await access.each("write states", run, at_once=at_once if recount else None)


async def read_function_states(access: Access, update: Update) -> dict[str, Any]:
    """What an update function keeps for each parameter."""

    def combine(_: object) -> dict[str, Any]:
        return update.reduction.read_states()

    return await access.gather(lambda _: None, combine)


async def write_function_states(
    access: Access,
    update: Update,
    states: Mapping[str, Any],
    recount: Callable[[], None] | None = None,
) -> None:
    """Set what an update function keeps for each parameter.

    `recount` is called on the first device's thread, where the function counts.
    """

    def run(replica: AnyReplica) -> None:
        if replica.index > 0:
            return
        if recount is not None:
            recount()
        update.reduction.write_states(states)

    await access.each("write states", run)


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: array for part in parts for name, array in part.items()}
