"""Who follows the `Next:` of the modules' docstrings arrives, and never comes back."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("asyncmod", "runtime")


@cache
def successors() -> dict[str, list[str]]:
    """The modules that each module's docstring sends the reader to."""
    following: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            _, _, then = text.partition("Next: ")
            following[name] = re.findall(r"`((?:asyncmod|runtime)\.[\w.]+)`", then)
    return following


def reached(begin: str) -> set[str]:
    seen, waiting = set(), [begin]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += successors()[name]
    return seen


def test_every_next_is_a_module() -> None:
    following = successors()
    dead_ends = {
        (name, other)
        for name, others in following.items()
        for other in others
        if other not in following
    }
    assert not dead_ends


def test_no_way_back() -> None:
    TopologicalSorter(successors()).prepare()  # raises CycleError


def test_one_batch_leads_to_its_kernels_and_callbacks() -> None:
    walk = reached("asyncmod.module.fit_loop")
    assert walk >= {
        "asyncmod.module.module_inside",
        "runtime.executor.group",
        "runtime.executor.steps",
        "runtime.actors.device_thread",
        "runtime.executor.replica",
        "runtime.executor.collective",
        "runtime.kernels.cpu.update",
        "asyncmod.module.metrics",
        "asyncmod.module.callbacks",
    }


def test_one_bind_leads_to_the_devices() -> None:
    walk = reached("asyncmod.symbol.symbol")
    assert walk >= {
        "runtime.graph.compile",
        "runtime.graph.infer",
        "runtime.graph.gradient",
        "runtime.graph.passes.memory",
        "runtime.graph.plan",
        "runtime.devices.contract",
        "runtime.devices.cpu",
        "runtime.kernels.cpu.vm",
    }
