"""Every optimizer of the library updates by compiled kernels alone.

Those that users write in Python, of which MXNet's `Test` is one, run as what they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.optimizer import Optimizer
from runtime.graph.plan import NativeRow, Plan
from runtime.kernels.cpu.library import load
from runtime.kernels.cpu.target import host_target
from runtime.ops.update import get_rule
from runtime.ops.updates.rule import UpdateRule
from tests.asyncmod.module.nets import mlp
from tests.asyncmod.optimizer.cases import CASES, label, make

MATRICES_ONLY = ["groupadagrad"]
IN_PYTHON = ["test"]

# Every setting that the tests of formulas have, and whatever else is registered.
OF_THE_LIBRARY = [
    name
    for name, klass in Optimizer.opt_registry.items()
    if klass.__module__.startswith("asyncmod.") and name not in IN_PYTHON
]
TABLE = [*CASES, *((name, {}) for name in OF_THE_LIBRARY if (name, {}) not in CASES)]


def rule_of(case: tuple[str, dict[str, Any]]) -> UpdateRule:
    definition = make(*case).definition
    assert definition is not None
    return get_rule(definition)


def normalized() -> mx.symbol.Symbol:
    """A net with a gamma that is fixed: it enters the update as 1."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="fc1")
    net = mx.sym.BatchNorm(net, fix_gamma=True, name="bn1")
    net = mx.sym.FullyConnected(net, num_hidden=3, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


async def plans(
    net: mx.symbol.Symbol, dtype: str, devices: int, name: str, settings: dict[str, Any]
) -> list[Plan]:
    """The plans of the update on each device."""
    vectors = [n for n in net.list_arguments() if not n.endswith(("weight", "label"))]
    fixed = [n for n in vectors if n != "data"] if name in MATRICES_ONLY else None
    contexts = [mx.cpu(i) for i in range(devices)]
    async with mx.Module(net, context=contexts, fixed_param_names=fixed) as module:
        data = mx.io.DataDesc("data", (8, 5), np.dtype(dtype).type)
        await module.bind([data], [("softmax_label", (8,))])
        await module.init_params()
        await module.init_optimizer(optimizer=name, optimizer_params=settings)
        memory = module.core.need_executors("test").first.group._memory
        (update,) = memory.updates.values()
        programs = update.programs.updates
        return [program.plan for program in programs if program is not None]


def check(found: list[Plan], devices: int) -> None:
    assert len(found) == devices
    for plan in found:
        assert not plan.sections["prepare"]
        assert plan.all_native
    assert any(plan.sections["update"] for plan in found)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("case", TABLE, ids=label)
async def test_float32(case: tuple[str, dict[str, Any]], devices: int) -> None:
    if not load().available:
        pytest.skip("needs numba")
    settings = {"clip_gradient": 0.5} | case[1]
    check(await plans(normalized(), "float32", devices, case[0], settings), devices)


@pytest.mark.parametrize(
    "case", [case for case in TABLE if rule_of(case).by_rows], ids=label
)
async def test_lazily(case: tuple[str, dict[str, Any]]) -> None:
    if not load().available:
        pytest.skip("needs numba")
    table = mx.sym.Embedding(
        mx.sym.Variable("data"), input_dim=9, output_dim=4, sparse_grad=True, name="in"
    )
    net = mx.sym.FullyConnected(mx.sym.mean(table, axis=1), num_hidden=3, name="fc")
    net = mx.sym.SoftmaxOutput(net, name="softmax")
    for plan in await plans(net, "float32", 2, *case):
        assert plan.all_native
        rows = plan.sections["update"]
        assert any(isinstance(row, NativeRow) and row.tables for row in rows)


@pytest.mark.parametrize("case", TABLE, ids=label)
async def test_float16_with_master_copies(case: tuple[str, dict[str, Any]]) -> None:
    if not (load().available and host_target().halves):
        pytest.skip("needs numba, and a processor that converts float16")
    settings = {"multi_precision": True} | case[1]
    check(await plans(mlp(), "float16", 2, case[0], settings), 2)
