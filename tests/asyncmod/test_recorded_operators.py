"""Every recorded operator case through `mx.bind`, on each device."""

from __future__ import annotations

import json
from typing import Any

import pytest

import asyncmod as mx
from tests.golden.arrays import HERE, arrays, tolerance

# Two variables of one name can be recorded, but not be bound by name.
TWICE = ("BlockGrad_mix_00", "group_00")
CASES = [
    case
    for case in json.loads((HERE / "ops" / "cases.json").read_text())
    if case["name"] not in TWICE
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_operator_computes_what_mxnet_did(
    case: dict[str, Any], recorded_on: mx.Context
) -> None:
    close = tolerance(case)
    recorded = arrays(f"ops/{case['name']}.npz")

    def given(kind: str) -> dict[str, Any]:
        return {k[4:]: v for k, v in recorded.items() if k.startswith(kind)}

    wanted = {
        n: request for n, request in case["grad_req"].items() if request != "null"
    }
    async with mx.bind(
        mx.symbol.load(HERE / "ops" / f"{case['name']}.json"),
        given("arg."),
        aux=given("aux.") or None,
        grad_req=wanted,
        context=recorded_on,
    ) as executor:
        outputs = await executor.forward(is_train=case["is_train"])
        assert list(executor.output_names) == case["outputs"]
        got: dict[str, Any] = {
            f"out.{i}": output
            for i, output in enumerate(outputs)
            if i not in case.get("ignore_outputs", [])
        }
        if case["is_train"] and wanted:
            heads = [recorded.get(f"head.{i}") for i in range(len(outputs))]
            some = any(head is not None for head in heads)
            gradients = await executor.backward(heads if some else None)
            got |= {f"grad.{name}": array for name, array in gradients.items()}
        got |= {f"auxout.{n}": array for n, array in (await executor.aux()).items()}
    expected = [k for k in recorded if k.startswith(("out.", "grad.", "auxout."))]
    for key in expected:
        if key in got:
            close.check(key, got[key], recorded[key])
            assert got[key].dtype == recorded[key].dtype, key
    assert {k for k in expected if not k.startswith("out.")} <= got.keys()
