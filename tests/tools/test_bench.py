"""The benchmark: its clock, its table, and that its symbols are the networks meant."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import asyncmod.symbol

BENCH = Path(__file__).parents[2] / "tools" / "bench"


class Modules:
    """The benchmark's modules, which are no package: they are found by path."""

    def __getattr__(self, name: str) -> ModuleType:
        return importlib.import_module(name)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    monkeypatch.syspath_prepend(str(BENCH))
    yield Modules()
    for path in BENCH.glob("*.py"):
        sys.modules.pop(path.stem, None)


class FakeTime:
    """A clock that moves only when a step is run."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 2


@pytest.mark.parametrize("cost", [2e-6, 0.004, 0.1])
def test_a_sample_is_long_enough_and_counts_per_step(
    bench: Modules, monkeypatch: pytest.MonkeyPatch, cost: float
) -> None:
    time = FakeTime()
    monkeypatch.setattr(bench.measurement, "time", time)
    clock = bench.measurement.Clock(seconds=1.0)
    for turns, steps in enumerate(clock, 1):
        # The first step costs more, and every third sample is disturbed.
        time.now += steps * cost + (0.5 if turns == 1 else 0.02 * (turns % 3 == 0))
    assert clock.first == pytest.approx(0.5 + cost)
    assert clock.steps * cost >= bench.measurement.SAMPLE * 0.99
    assert min(clock.wall) == pytest.approx(cost)
    assert min(clock.cpu) == pytest.approx(cost / 2)
    assert len(clock.wall) >= bench.measurement.FEWEST_SAMPLES
    assert sum(clock.wall) * clock.steps >= 1.0


def test_samples_that_overlap_count_by_their_mean(
    bench: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = FakeTime()
    monkeypatch.setattr(bench.measurement, "time", time)
    clock = bench.measurement.Clock(seconds=3.0, overlapping=True)
    for turn, _ in enumerate(clock):
        time.now += (0.02, 0.18)[turn % 2]  # a step ends in the turn after its own
    assert clock.steps == 1
    assert clock.best == pytest.approx(0.1, rel=0.1)
    clock.overlapping = False
    assert clock.best == pytest.approx(0.02)


def test_table_compares_the_best_of_each_library(bench: Modules) -> None:
    def result(library: str, ms: float) -> dict[str, Any]:
        return {
            "library": library,
            "workload": "W2",
            "mode": "train",
            "threads": 1,
            "ms_min": ms,
        }

    results = [result("jax", 8.0), result("torch", 5.0), result("torch", 4.0)]
    results += [result("asyncmod", 3.5), result("asyncmod", 3.0)]
    head, row = bench.table.table(results).splitlines()
    assert head.split()[:6] == [
        "mode",
        "workload",
        "threads",
        "asyncmod",
        "jax",
        "torch",
    ]
    assert row.split() == ["train", "W2", "1", "3", "8", "4", "0.75"]
    [row] = bench.table.table(results[:1]).splitlines()[1:]
    assert row.split()[-1] == "-"


@pytest.mark.parametrize(
    ("name", "parameters", "layers"),
    [
        ("W1_64", 784 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10, 3),
        ("W2", 25 * 20 + 20 + 500 * 50 + 50 + 800 * 500 + 500 + 5000 + 10, 4),
        # What PyTorch counts for the same network.
        ("W3_64", 272_474, 22),
        # As PyTorch counts: MXNet too has two biases for each gate.
        ("W4", 2 * 10000 * 200 + 10000 + 2 * (2 * 800 * 200 + 2 * 800), 2),
        ("W5", 16 * 32 + 32 + 32 * 4 + 4, 2),
        ("W6", 67_914, 10),
    ],
)
def test_symbols_have_the_sizes_meant(
    bench: Modules, name: str, parameters: int, layers: int
) -> None:
    workload = bench.workloads.WORKLOADS[name]
    net = bench.workloads.symbol(name, asyncmod.symbol)
    shapes, outputs, _ = net.infer_shape(
        data=workload.data_shape, softmax_label=workload.label_shape
    )
    assert outputs == [(math.prod(workload.label_shape), workload.classes)]
    sizes = {
        argument: shape
        for argument, shape in zip(net.list_arguments(), shapes, strict=True)
        if argument not in ("data", "softmax_label", *workload.state_names)
    }
    count = 0
    for shape in sizes.values():
        size = 1
        for length in shape:
            size *= length
        count += size
    assert count == parameters
    assert sum(name.endswith("_weight") for name in sizes) == layers


@pytest.mark.parametrize("name", ["W2", "W4", "W5"])
def test_a_batch_has_what_the_network_takes(bench: Modules, name: str) -> None:
    workload = bench.workloads.WORKLOADS[name]
    data, label = bench.inputs.batch_of(workload)
    net = bench.workloads.symbol(name, asyncmod.symbol)
    shapes, _, _ = net.infer_shape(data=data.shape, softmax_label=label.shape)
    assert None not in shapes
    assert data.shape[workload.layout.find("N")] == workload.batch
    assert 0 <= label.min() < label.max() < workload.classes
    if workload.is_sequence:
        assert (data % 1 == 0).all()


@pytest.mark.parametrize("name", ["W4", "W5"])
async def test_a_module_of_a_workload_steps(bench: Modules, name: str) -> None:
    async with bench.ours.ready_module(name, 1) as (mod, batch):
        await mod.step(batch)
        (output,) = await mod.get_outputs()
    workload = bench.workloads.WORKLOADS[name]
    assert output.shape == (math.prod(workload.label_shape), workload.classes)


def test_every_rule_is_timed(bench: Modules) -> None:
    from runtime.ops.update import RULES

    timed = bench.updates.HYPER
    assert timed.keys() == RULES.keys()
    for name, scalars in timed.items():
        assert len(RULES[name].hyper) == 4 + len(scalars)


def test_an_update_is_timed_by_its_elements(bench: Modules) -> None:
    assert 0 < bench.updates.ours("reference", "lamb", 100, 0.001) < 1e9


def test_the_fastest_run_counts(
    bench: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    costs = iter([100.0, 3.0, 2.0, 4.0, 5.0])

    def run() -> None:
        now[0] += next(costs)

    monkeypatch.setattr(bench.updates, "perf_counter", lambda: now[0])
    assert bench.updates.fastest(run, seconds=9.5) == 2.0
