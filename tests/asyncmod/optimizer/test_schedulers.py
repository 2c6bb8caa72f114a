"""Learning rate schedules against MXNet 1.9.1, refusals, and states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import structlog

from asyncmod import lr_scheduler

GOLDEN = Path(__file__).parents[2] / "golden" / "training" / "lr_schedulers.json"
CASES = json.loads(GOLDEN.read_text())


def make(config: dict[str, Any]) -> lr_scheduler.LRScheduler:
    config = dict(config)
    made: lr_scheduler.LRScheduler = getattr(lr_scheduler, config.pop("class"))(
        **config
    )
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["scheduler"]["class"])
def test_same_rates_as_mxnet(case: dict[str, Any]) -> None:
    scheduler = make(case["scheduler"])
    with structlog.testing.capture_logs():
        rates = [scheduler(n) for n in range(len(case["lr"]))]
    np.testing.assert_allclose(rates, case["lr"], rtol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["scheduler"]["class"])
def test_state_continues_exactly(case: dict[str, Any]) -> None:
    for cut in (0, 7, 21, 75, 150):
        first, second = make(case["scheduler"]), make(case["scheduler"])
        with structlog.testing.capture_logs():
            for n in range(cut):
                first(n)
            second.set_state(msgpack.unpackb(msgpack.packb(first.get_state())))
            rest = range(cut, 201)
            assert [second(n) for n in rest] == [first(n) for n in rest]


def test_a_constant_warmup() -> None:
    scheduler = lr_scheduler.FactorScheduler(
        100, base_lr=1.0, warmup_steps=3, warmup_begin_lr=0.25, warmup_mode="constant"
    )
    assert [scheduler(n) for n in range(5)] == [0.25, 0.25, 0.25, 1.0, 1.0]


def test_changes_are_logged_in_mxnets_words() -> None:
    scheduler = lr_scheduler.FactorScheduler(2, 0.1, 0.005, base_lr=0.1)
    with structlog.testing.capture_logs() as logs:
        scheduler(3)
        scheduler(5)
    assert [line["event"] for line in logs] == [
        "Update[3]: Change learning rate to 1.00000e-02",
        "Update[5]: now learning rate arrived at 5.00000e-03, will not change in the "
        "future",
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lr_scheduler.FactorScheduler(0), "`step` is 0"),
        (lambda: lr_scheduler.FactorScheduler(5, factor=1.1), "`factor` is 1.1"),
        (lambda: lr_scheduler.MultiFactorScheduler([5, 5]), "increasing"),
        (lambda: lr_scheduler.MultiFactorScheduler([0, 5]), "`step` is"),
        (lambda: lr_scheduler.MultiFactorScheduler([]), "`step` is"),
        (lambda: lr_scheduler.PolyScheduler(0), "`max_update` is 0"),
        (lambda: lr_scheduler.CosineScheduler(5, warmup_steps=5), "`max_update` is 5"),
        (lambda: lr_scheduler.CosineScheduler(5, warmup_begin_lr=1), "warmup_begin_lr"),
        (lambda: lr_scheduler.CosineScheduler(5, warmup_steps=-1), "positive or 0"),
        (
            lambda: lr_scheduler.CosineScheduler(5, warmup_mode="square"),  # type: ignore[arg-type]
            "'square'",
        ),
    ],
)
def test_refused_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
