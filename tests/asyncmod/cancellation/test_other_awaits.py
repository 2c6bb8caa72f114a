"""Every awaitable member of what is no module, cancelled at every point."""

from __future__ import annotations

from pathlib import Path

import pytest

import asyncmod as mx
from tests.asyncmod.cancellation import iterators, others
from tests.asyncmod.cancellation.trial import Trial

TABLE = {**iterators.cases(), **others.cases()}


@pytest.mark.parametrize("member", TABLE)
async def test_stands_at_a_waypoint(
    member: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mx.open_runtime() as runtime:
        await Trial(TABLE[member], tmp_path, monkeypatch).run(runtime, "queued")
