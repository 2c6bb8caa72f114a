"""A call is cancelled at every point, each time on a fresh subject.

What can be seen of the subject afterwards, and after it has gone on, must be what an
undisturbed subject shows that was never called, or was called to the end, or was
called up to one of the case's waypoints.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import trio

import asyncmod as mx
from runtime.actors.runtime import Runtime
from runtime.executor.group import ExecutorGroup
from tests.harness.cancellation import GatePlace, cancel_at_every_step

SEED = 11


class Subject(Protocol):
    """What a call is made on."""

    async def observe(self) -> Any:
        """All that can be seen of it: nested dicts and lists of arrays and values."""

    async def go_on(self) -> Any:
        """Use it further, as for a step, and return what came of it."""

    async def aclose(self) -> None:
        """Free what it holds."""


Call = Callable[[Any], Awaitable[object]]


@dataclass(frozen=True)
class Case:
    """A call that is cancelled.

    Attributes:
        make: Makes a fresh subject; the folder is the subject's own, and empty.
        call: What is cancelled.
        waypoints: Shorter calls, after which the cancelled one may stand as well.
        reads: Whether the call must change nothing.
    """

    make: Callable[[Path], Awaitable[Subject]]
    call: Call
    waypoints: Sequence[Call] = ()
    reads: bool = False


async def nothing(subject: Any) -> None:
    """The waypoint of all cases."""


class Trial:
    """One case, in one runtime."""

    def __init__(self, case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.case = case
        self.folder = folder
        self.subjects = 0
        self.groups: list[ExecutorGroup] = []
        create = ExecutorGroup.create

        async def note(*arguments: Any, **options: Any) -> ExecutorGroup:
            self.groups.append(await create(*arguments, **options))
            return self.groups[-1]

        monkeypatch.setattr(ExecutorGroup, "create", note)

    async def run(self, runtime: Runtime, place: GatePlace) -> int:
        """Cancel the call everywhere; returns at how many points."""
        calls = [nothing, *self.case.waypoints, self.case.call]
        allowed = [await self._undisturbed(call) for call in calls]
        if self.case.reads:
            assert not differences(allowed[0], allowed[-1])
        tasks = trio.lowlevel.current_statistics().tasks_living
        subject = await self._fresh()

        async def call() -> None:
            await self.case.call(subject)

        async def check(finished: bool) -> None:
            nonlocal subject
            seen = await self._seen(subject)
            ways = [differences(seen, other) for other in allowed]
            wanted = ways[-1:] if finished else ways
            assert [] in wanted, f"finished: {finished}; beside each waypoint: {wanted}"
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            subject = await self._fresh()

        steps = await cancel_at_every_step(call, check, runtime=runtime, place=place)
        await self._close(subject)
        return steps

    async def _fresh(self) -> Subject:
        self.subjects += 1
        folder = self.folder / f"{self.subjects}"
        folder.mkdir()
        mx.seed(SEED)
        return await self.case.make(folder)

    async def _undisturbed(self, call: Call) -> Any:
        subject = await self._fresh()
        await call(subject)
        return await self._seen(subject)

    async def _seen(self, subject: Subject) -> Any:
        """What a subject shows now and after it has gone on; it is closed then."""
        now = await subject.observe()
        later = await subject.go_on()
        await self._close(subject)
        return {"now": now, "later": later}

    async def _close(self, subject: Subject) -> None:
        await subject.aclose()
        # Not even what a cancelled call was about to make is left open.
        assert all(group._calls.closed for group in self.groups)
        self.groups.clear()


async def outcome(call: Callable[[], Awaitable[object]]) -> object:
    """What a call returns, or that it is refused."""
    try:
        return await call()
    except (mx.errors.AsyncmodError, NotImplementedError):
        return "refused"


def differences(left: Any, right: Any, path: str = "") -> list[str]:
    """Paths to what differs in two nested structures; equal bit by bit gives []."""
    if isinstance(left, dict) and isinstance(right, dict):
        if left.keys() != right.keys():
            return [f"{path}: {sorted(left)} and {sorted(right)}"]
        return [
            line
            for key, value in left.items()
            for line in differences(value, right[key], f"{path}/{key}")
        ]
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) != len(right):
            return [f"{path}: {len(left)} and {len(right)}"]
        return [
            line
            for i, (one, other) in enumerate(zip(left, right, strict=True))
            for line in differences(one, other, f"{path}/{i}")
        ]
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        equal = left.shape == right.shape and np.array_equal(left, right, True)
        return [] if equal else [path]
    if isinstance(left, float) and isinstance(right, float):
        return [] if left == right or math.isnan(left + right) else [path]
    return [] if type(left) is type(right) and left == right else [path]
