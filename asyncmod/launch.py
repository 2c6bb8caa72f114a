"""`mx.run`: trio.run with an open runtime and errors that help."""

from __future__ import annotations

import inspect
import sys
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio

from asyncmod.errors import NotAwaitedError, ScopeError
from runtime.actors import WorkerPolicy, open_runtime

__all__ = ["WorkerPolicy", "open_runtime", "run"]

T = TypeVar("T")
NEVER_AWAITED = "was never awaited"


def run(
    async_fn: Callable[..., Awaitable[T]],
    *args: Any,
    deadline: float = 10.0,
    workers: WorkerPolicy | None = None,
) -> T:
    """Run an async program with a runtime around it, to its end.

    As `trio.run(async_fn, *args)`, but modules and iterators that were not entered
    with `async with` live in the runtime and are closed with it, and a coroutine of
    asyncmod's that was never awaited is an error that names the line.

    Args:
        async_fn: The program.
        *args: Its arguments.
        deadline: Seconds that closing the runtime may take.
        workers: What is borne from worker processes; see `WorkerPolicy`.

    Returns:
        What `async_fn` returned.

    Raises:
        ScopeError: called inside an event loop, or with something other than an async
            function.
        SystemExit, KeyboardInterrupt: bare, whatever nurseries they came through.
        NotAwaitedError: the program ended well, but an `await` was forgotten. If it
            failed, the forgotten ones are notes of what it raised.
    """
    _check(async_fn)

    async def main() -> T:
        async with open_runtime(deadline=deadline, workers=workers):
            return await async_fn(*args)

    with _unawaited() as forgotten:
        try:
            result = trio.run(main)
        except BaseException as error:
            for line in (*forgotten, *_held(error)):
                error.add_note(f"perhaps because {line}")
            exit_ = _only_exit(error)
            if exit_ is not None:
                raise exit_ from None
            raise
    if forgotten:
        raise NotAwaitedError("; ".join(forgotten))
    return result


def _check(async_fn: object) -> None:
    if hasattr(async_fn, "cr_frame"):
        async_fn.close()  # type: ignore[attr-defined]
        name = getattr(async_fn, "__name__", "main")
        raise ScopeError(
            f"mx.run takes the async function, not its call: write mx.run({name})"
        )
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return
    raise ScopeError(
        "mx.run was called inside a Trio program: await the function itself, inside "
        "`async with mx.open_runtime():`"
    )


def _only_exit(error: BaseException) -> SystemExit | KeyboardInterrupt | None:
    """What ends the program, if a group of errors holds nothing else."""
    if not isinstance(error, BaseExceptionGroup):
        return None
    ends, others = error.split((SystemExit, KeyboardInterrupt))
    if ends is None or others is not None:
        return None
    first: BaseException = ends
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, SystemExit | KeyboardInterrupt)
    return first


@contextmanager
def _unawaited() -> Iterator[list[str]]:
    """Collect a line for each coroutine of asyncmod's that is dropped unawaited."""
    forgotten: list[str] = []
    depth = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(max(depth, 1))
    warn = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]

    def collect(coroutine: Any) -> None:
        if _is_ours(coroutine):
            forgotten.append(_told(coroutine))
        else:
            warn(coroutine)

    warnings._warn_unawaited_coroutine = collect  # type: ignore[attr-defined]
    try:
        yield forgotten
    finally:
        warnings._warn_unawaited_coroutine = warn  # type: ignore[attr-defined]
        sys.set_coroutine_origin_tracking_depth(depth)


def _held(error: BaseException) -> list[str]:
    """The same for those that variables of the failed program still hold."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    values = [value for frame in frames for value in frame.f_locals.values()]
    lines = []
    for value in values:
        if not inspect.iscoroutine(value) or not _is_ours(value):
            continue
        if inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
            lines.append(_told(value))
            value.close()  # or it would be reported once more, when it is dropped
    return lines


def _is_ours(coroutine: Any) -> bool:
    frame = coroutine.cr_frame
    name: str = frame.f_globals.get("__name__", "") if frame else ""
    return name.startswith("asyncmod.")


def _told(coroutine: Any) -> str:
    """What was forgotten, and in which line."""
    where = ""
    if coroutine.cr_origin:
        filename, line, function = coroutine.cr_origin[0]
        where = f" (called in {function}, {filename}:{line})"
    return (
        f"`{coroutine.__qualname__}(...)` {NEVER_AWAITED}{where}: write `await` "
        "before the call"
    )
