"""Recorded nets and trainings that cannot run yet.

Printed by `python -m tests.golden.module_coverage`.
A net is covered when all its operators are registered, a training when its kind of
module, its optimizer and its scheduler are here. `modules_uncovered.txt` is the list
that is to shrink.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncmod as mx
import runtime.ops  # noqa: F401  (fills the table)
from runtime.graph import registry
from tests.golden.arrays import cases

HERE = Path(__file__).parent

# MXNet never sums these gradients, asyncmod does.
NOT_REPRODUCED = ("kv_None_ctx2",)

MODULES = {
    "module": "Module",
    "bucketing": "BucketingModule",
    "sequential": "SequentialModule",
}


def config(case: str) -> dict[str, Any]:
    """The recorded settings of a training."""
    read: dict[str, Any] = json.loads((HERE / "training" / f"{case}.json").read_text())
    return read


def missing_operators(symbol: Path) -> list[str]:
    """Operators of a symbol file that are not registered."""
    known = set(registry.names())
    used = {node["op"] for node in json.loads(symbol.read_text())["nodes"]}
    return sorted(used - known - {"null"})


def uncovered() -> dict[str, list[str]]:
    """Cases that cannot run, as `category/name`, each with what is missing."""
    found: dict[str, list[str]] = {}
    for name in cases("nets"):
        missing = missing_operators(HERE / "nets" / f"{name}-symbol.json")
        if missing:
            found[f"nets/{name}"] = missing
    for name in cases("training"):
        if name in NOT_REPRODUCED:
            continue
        missing = _missing_for_training(name)
        if missing:
            found[f"training/{name}"] = missing
    return found


def covered(category: str) -> list[str]:
    """Names of the cases that can run."""
    lacking = uncovered()
    return [
        name
        for name in cases(category)
        if f"{category}/{name}" not in lacking and name not in NOT_REPRODUCED
    ]


def _missing_for_training(name: str) -> list[str]:
    if name == "lr_schedulers":
        recorded: Any = config(name)
        classes = {case["scheduler"]["class"] for case in recorded}
        return sorted(c for c in classes if not hasattr(mx.lr_scheduler, c))
    case = config(name)
    missing = []
    if not hasattr(mx, MODULES[case["kind"]]):
        missing.append(MODULES[case["kind"]])
    if case["optimizer"] not in mx.optimizer.Optimizer.opt_registry:
        missing.append(case["optimizer"])
    scheduler = case["optimizer_params"].get("lr_scheduler")
    if scheduler is not None and not hasattr(mx.lr_scheduler, scheduler["class"]):
        missing.append(scheduler["class"])
    return missing


if __name__ == "__main__":
    for name, missing in uncovered().items():
        print(name, *missing)
