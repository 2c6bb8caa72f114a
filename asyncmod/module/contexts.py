"""`context` and `work_load_list`, as users give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from asyncmod.context import Context, current_context
from asyncmod.errors import ArgumentError, ArgumentTypeError
from runtime.devices.contract import OnDeath


def as_contexts(context: Any) -> tuple[Context, ...]:
    """One context, several, or None for `cpu(0)`, as a tuple.

    Raises:
        ArgumentTypeError: something else than a context.
        ArgumentError: none, or one of them twice.
    """
    if context is None:
        context = current_context()
    contexts = tuple(context) if isinstance(context, list | tuple) else (context,)
    for item in contexts:
        if not isinstance(item, Context):
            raise ArgumentTypeError(
                "`context` must be a context such as mx.cpu(0), or a list of them, not "
                f"{item!r}"
            )
        if contexts.count(item) > 1:
            raise ArgumentError(
                f"`context` names {item} twice; each device can take one share of the "
                "batch: give its share in work_load_list"
            )
    if not contexts:
        raise ArgumentError("`context` is empty: give at least mx.cpu(0)")
    return contexts


def as_workload(
    work_load_list: Sequence[float] | None, count: int
) -> tuple[float, ...]:
    """The share of each of `count` contexts; equal ones unless given.

    Raises:
        ArgumentError: not one share per context, a negative one, or all zero.
    """
    if work_load_list is None:
        return (1.0,) * count
    workload = tuple(float(share) for share in work_load_list)
    if len(workload) != count:
        raise ArgumentError(
            f"`work_load_list` has {len(workload)} entries for {count} contexts"
        )
    if not all(share >= 0 for share in workload) or sum(workload) <= 0:
        raise ArgumentError(
            f"`work_load_list` is {list(workload)}; shares must not be negative, and "
            "not all zero"
        )
    return workload


def listed(contexts: Sequence[Context]) -> str:
    """Contexts for an error message."""
    return ", ".join(str(context) for context in contexts)


def as_on_worker_death(choice: Any, in_groups: bool = False) -> OnDeath:
    """What is to be done when a worker process dies.

    Args:
        choice: As the user gives it.
        in_groups: Whether parts of one graph run on different contexts.

    Raises:
        ArgumentError: something that nobody can do.
    """
    if choice == "drop" and in_groups:
        raise ArgumentError(
            "on_worker_death='drop' does not go with group2ctxs: no other context can "
            "take a context's part of the graph; use 'restart' or 'fail'"
        )
    choices: tuple[OnDeath, ...] = get_args(OnDeath)
    for known in choices:
        if choice == known:
            return known
    raise ArgumentError(
        f"`on_worker_death` (={choice!r}) must be one of {', '.join(choices)}"
    )
