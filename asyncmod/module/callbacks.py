"""Calling what users hand in: one callback or a list, `def` or `async def`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from asyncmod.errors import ArgumentTypeError


class BatchEndParam(NamedTuple):
    """What batch callbacks are called with.

    Attributes:
        epoch: Number of the epoch.
        nbatch: Number of the batch in the epoch, from 0; after the last batch, how
            many there were.
        eval_metric: The metric, which includes this batch.
        locals: The loop's variables by name (`self`, `data_batch`, `nbatch`, ...).
    """

    epoch: int
    nbatch: int
    eval_metric: Any
    locals: dict[str, Any]


Callback = Callable[..., Any]
Callbacks = Callback | Iterable[Callback] | None


def as_callbacks(name: str, given: Callbacks) -> tuple[Callback, ...]:
    """One callable, several, or None, as a tuple.

    Args:
        name: The parameter's name, for the error.
        given: What the user gave.

    Raises:
        ArgumentTypeError: something in it cannot be called.
    """
    if given is None:
        return ()
    callbacks = (given,) if callable(given) else tuple(given)
    for callback in callbacks:
        if not callable(callback):
            raise ArgumentTypeError(
                f"`{name}` must be a callable or a list of callables, and "
                f"{callback!r} cannot be called"
            )
    return callbacks


async def call(callbacks: tuple[Callback, ...], *args: Any) -> None:
    """Call each in order, awaiting what is awaitable.

    What a callback raises is raised here, with a note that names the callback.
    """
    for callback in callbacks:
        try:
            result = callback(*args)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            name = getattr(callback, "__qualname__", type(callback).__qualname__)
            error.add_note(f"raised in the callback {name}")
            raise
