"""Where recorded cases run: each kind of device, and once with guard zones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

import asyncmod as mx
from runtime.devices.guards import Guards
from runtime.executor.specification import GroupSpec


@pytest.fixture
def guard_zones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Guard zones around every tensor of what the test binds, looked at every time."""
    looked = []
    check = Guards.check

    def note(guards: Guards, section: str) -> None:
        looked.append(section)
        check(guards, section)

    monkeypatch.setattr(Guards, "check", note)
    guarded = partial(GroupSpec, guards=128)
    monkeypatch.setattr("asyncmod.executor.GroupSpec", guarded)
    monkeypatch.setattr("asyncmod.module.template.GroupSpec", guarded)
    yield
    assert looked


@pytest.fixture(params=["cpu", "reference", "guarded cpu"])
def recorded_on(request: pytest.FixtureRequest) -> mx.Context:
    """The context that a recorded case is run on."""
    if request.param == "guarded cpu":
        request.getfixturevalue("guard_zones")
    return mx.reference(0) if request.param == "reference" else mx.cpu(0)
