"""State inputs at the face: whole arrays, or one per context.

Next: `runtime.executor.group`, which keeps them on the devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncmod.errors import ArgumentError, InputError
from asyncmod.module.batches import Array, as_array
from runtime.executor.group import ExecutorGroup
from runtime.executor.split import is_empty, merge, select


def check_count(states: Any, names: Sequence[str]) -> None:
    """Refuse a list that does not have one entry per state.

    Raises:
        ArgumentError: it is no list, or has another length.
    """
    if not isinstance(states, list | tuple):
        raise ArgumentError(
            "`states` must be a list with one entry per state, not "
            f"{type(states).__name__}: {', '.join(names)}"
        )
    if len(states) != len(names):
        raise ArgumentError(
            f"`states` has {len(states)} entries for {len(names)} states: "
            f"{', '.join(names)}"
        )


def check_one(states: Any, value: float | None) -> None:
    """Refuse both of `states` and `value`, and none of them."""
    if (states is None) == (value is None):
        raise ArgumentError("set_states takes either `states` or `value`")


def merged(group: ExecutorGroup, states: dict[str, list[Array]]) -> list[Array]:
    """Each state put together along its batch axis."""
    axes = {i.name: i.batch_axis for i in group.spec.states}
    return [merge(parts, axes[name]) for name, parts in states.items()]


def per_device(group: ExecutorGroup, states: Sequence[Any]) -> dict[str, list[Array]]:
    """Arrays per state and context, from what `set_states` takes.

    Args:
        group: Where they go; an entry that is one array is split as its batches are.
        states: Per state an array for the whole batch, or a list of arrays.

    Raises:
        InputError: an array of another shape than the batch needs.
    """
    parts: dict[str, list[Array]] = {}
    for spec, given in zip(group.spec.states, states, strict=True):
        if isinstance(given, list | tuple):
            parts[spec.name] = [as_array(spec.name, part) for part in given]
            continue
        array = as_array(spec.name, given)
        if array.shape != spec.shape:
            raise InputError(
                f"state `{spec.name}` has shape {array.shape}, but {spec.shape} is "
                "bound: give the whole array, or a list with one array per context"
            )
        selections = [
            select(spec.batch_axis, rows) for rows in group.slices if not is_empty(rows)
        ]
        parts[spec.name] = [array if s is None else array[s] for s in selections]
    return parts
