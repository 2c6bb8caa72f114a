"""Trainings recorded from MXNet 1.9.1, with their nodes scattered over devices."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest

import asyncmod as mx
from tests.asyncmod.module.test_golden_training import STEPS, Player, symbol_of
from tests.golden.arrays import HERE
from tests.golden.module_coverage import config

DEVICES: dict[str, Callable[[int], mx.Context]] = {
    "cpu": mx.cpu,
    "reference": mx.reference,
    "simulated": lambda i: mx.Context("simulated", i),
    "mixed": lambda i: (mx.cpu, mx.reference)[i % 2](i),
    "apart": lambda i: (mx.reference(i), mx.Context("simulated", i))[i % 2],
}
SLOW = ("reference", "simulated", "mixed")
NAMES = [n for n in STEPS if config(n)["kind"] in ("module", "bucketing")]


def scattered(symbol: mx.symbol.Symbol, inputs: list[str]) -> mx.symbol.Symbol:
    """Nodes in the groups a, b or none, by their names; inputs in none."""
    records = json.loads(symbol.tojson())
    for node in records["nodes"]:
        group = ("a", "b", None)[crc32(node["name"].encode()) % 3]
        if group is not None and node["name"] not in inputs:
            node.setdefault("attrs", {})["__ctx_group__"] = group
    return mx.symbol.load_json(json.dumps(records))


class ScatteredPlayer(Player):
    """Plays a case in groups, with devices of their own for each context."""

    def __init__(self, name: str, device: Callable[[int], mx.Context]) -> None:
        super().__init__(name, "reference", whole_steps=True)
        case, count = self.case, self.case["contexts"]
        inputs = [*case["data_names"], *case["label_names"]]
        options: dict[str, Any] = {
            "context": [device(3 * i) for i in range(count)],
            "group2ctxs": [
                {"a": device(3 * i + 1), "b": device(3 * i + 2)} for i in range(count)
            ],
        }

        def generate(key: int) -> tuple[mx.symbol.Symbol, list[str], list[str]]:
            symbol = mx.symbol.load(HERE / case["symbols"][str(key)])
            return scattered(symbol, inputs), case["data_names"], case["label_names"]

        if case["kind"] == "bucketing":
            key = case["default_bucket_key"]
            self.module = mx.BucketingModule(generate, key, **options)
        else:
            self.module = mx.Module(
                scattered(symbol_of(case), inputs),
                data_names=case["data_names"],
                label_names=case["label_names"],
                work_load_list=case.get("work_load_list"),
                fixed_param_names=case.get("fixed_param_names"),
                **options,
            )


@pytest.mark.parametrize(
    "devices",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in DEVICES
    ],
)
@pytest.mark.parametrize("name", NAMES)
async def test_scattered_training(name: str, devices: str) -> None:
    player = ScatteredPlayer(name, DEVICES[devices])
    async with player.module:
        await player.prepare()
        await player.play()
