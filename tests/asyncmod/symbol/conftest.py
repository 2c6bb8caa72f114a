"""A registry of the test's own, with operators of every shape."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from runtime.graph import registry
from runtime.graph.registry import Operator


@dataclass(frozen=True)
class Pieces:
    """Attributes of the test's splitting operator."""

    num_outputs: int
    mode: str = "even"


def _not_run(*args: object) -> None:
    raise AssertionError("symbols are never run")


def pieces_operator() -> Operator:
    """An operator of several outputs, the last of them hidden."""
    return Operator(
        name="Pieces",
        aliases=("pieces",),
        attributes=Pieces,
        outputs=lambda p: tuple(f"output{i}" for i in range(p.num_outputs + 1)),
        visible=lambda p: p.num_outputs,
        shape=lambda p, inputs, outputs: (
            inputs,
            [inputs[0]] * (p.num_outputs + 1),
        ),
        forward=_not_run,
    )


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_table", dict(registry._table))
    registry.register(pieces_operator())
