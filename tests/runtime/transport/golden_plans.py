"""The plans of the nets that MXNet recorded, for devices with kernels and without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import asyncmod as mx
from runtime.devices.factory import create_device
from runtime.graph.compile import Request, compile_plan
from runtime.graph.plan import Plan
from tests.golden.arrays import HERE, arrays, cases
from tests.golden.module_coverage import covered

CASES = cases("nets")
NAMES = covered("nets")


def plans(name: str) -> Iterator[Plan]:
    """For inference, for training, and with gradients that are added up."""
    case, recorded = CASES[name], arrays(f"nets/{name}.npz")
    graph = mx.symbol.load(HERE / "nets" / f"{name}-symbol.json").graph
    inputs = (*case["data_names"], *case["label_names"])
    shapes = {key: recorded[f"in.{key}"].shape for key in inputs}
    trained = [n.name for n in graph.arguments if n.name not in inputs]
    wishes: tuple[Literal["write", "add"] | None, ...] = (None, "write", "add")
    for kind in ("cpu", "reference"):
        native = create_device(kind).native
        for wish in wishes:
            gradients = dict.fromkeys(trained, wish) if wish else {}
            request = Request(
                graph, inputs, shapes, {}, gradients, bool(wish), native=native
            )
            yield compile_plan(request)
