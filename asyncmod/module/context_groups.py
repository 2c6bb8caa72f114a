"""`group2ctxs`, as users give it: where the context groups of a symbol run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncmod.context import Context
from asyncmod.errors import ArgumentError, ArgumentTypeError

Placements = tuple[Mapping[str, Context], ...]


def as_placements(
    group2ctxs: Any, count: int, argument: str = "group2ctxs"
) -> Placements:
    """The context of each group, per context that shares the batch.

    Args:
        group2ctxs: A dict of group to context or list of contexts, or one dict of group
            to context per context; None for no groups.
        count: How many contexts share the batch.
        argument: What the caller calls it, for error messages.

    Returns:
        One dict per context; () if there are no groups at all.

    Raises:
        ArgumentTypeError: something of another form.
        ArgumentError: a list that is not as long as there are contexts.
    """
    if group2ctxs is None:
        return ()
    if isinstance(group2ctxs, Mapping):
        columns = {
            group: _per_context(argument, group, contexts, count)
            for group, contexts in group2ctxs.items()
        }
        placements = [
            {group: contexts[i] for group, contexts in columns.items()}
            for i in range(count)
        ]
    elif isinstance(group2ctxs, list | tuple):
        if len(group2ctxs) != count:
            raise ArgumentError(
                f"`{argument}` has {len(group2ctxs)} entries for {count} contexts: "
                "give one dict of group to context for each"
            )
        placements = [_one_context(argument, groups) for groups in group2ctxs]
    else:
        raise ArgumentTypeError(
            f"`{argument}` must be a dict of group to context (or to a list of "
            f"contexts), or a list of such dicts, not {group2ctxs!r}"
        )
    return tuple(placements) if any(placements) else ()


def _one_context(argument: str, groups: Any) -> dict[str, Context]:
    if groups is None:
        return {}
    if not isinstance(groups, Mapping):
        raise ArgumentTypeError(
            f"`{argument}` holds {groups!r}; a list must hold dicts of group to context"
        )
    return {
        group: _per_context(argument, group, c, 1)[0] for group, c in groups.items()
    }


def _per_context(argument: str, group: str, contexts: Any, count: int) -> list[Context]:
    listed = list(contexts) if isinstance(contexts, list | tuple) else [contexts]
    for context in listed:
        if not isinstance(context, Context):
            raise ArgumentTypeError(
                f"`{argument}` gives {context!r} for the group {group!r}; it must be a "
                "context such as mx.cpu(1)"
            )
    if len(listed) not in (1, count):
        raise ArgumentError(
            f"`{argument}` has {len(listed)} contexts for the group {group!r}; give "
            f"one, or one for each of the {count} in `context`"
        )
    return listed * count if len(listed) == 1 else listed
