"""Every awaitable member of every kind of module, cancelled at every point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asyncmod as mx
from tests.asyncmod.cancellation import bucketing, modules, python_modules, sequential
from tests.asyncmod.cancellation.trial import Trial
from tests.harness.cancellation import GatePlace

ONE = [mx.cpu(0)]
TWO = [mx.reference(0), mx.reference(1)]
KINDS = {
    "Module": modules.cases,
    "BucketingModule": bucketing.cases,
    "SequentialModule": sequential.cases,
    "PythonLossModule": python_modules.cases,
}
TABLE = {kind: cases(ONE) for kind, cases in KINDS.items()}
Place = tuple[list[mx.Context], GatePlace]
PLACES: dict[str, tuple[Place, ...]] = {
    "Module": ((TWO, "queued"), (TWO, "begun"), (ONE, "begun")),
    "BucketingModule": ((ONE, "begun"), (TWO, "queued"), (TWO, "begun")),
    "SequentialModule": ((TWO, "queued"), (TWO, "begun")),
    "PythonLossModule": ((ONE, "begun"),),
}
"""Where: the first for all members, the others for those that steps are made of."""
STEPS = {"backward", "fit", "forward", "forward_backward", "step", "update"}


def trials() -> Iterator[Any]:
    for kind, cases in TABLE.items():
        for name in cases:
            places = PLACES[kind] if name in STEPS else PLACES[kind][:1]
            for context, place in places:
                where = f"{len(context)} {context[0].kind} {place}"
                identity = f"{kind}.{name}-{where}"
                yield pytest.param(kind, name, context, place, id=identity)


@pytest.mark.parametrize(("kind", "name", "context", "place"), list(trials()))
async def test_module_stands_at_a_waypoint(
    kind: str,
    name: str,
    context: list[mx.Context],
    place: GatePlace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = KINDS[kind](context)[name]
    async with mx.open_runtime() as runtime:
        await Trial(case, tmp_path, monkeypatch).run(runtime, place)
