"""Nets recorded from MXNet 1.9.1: predict, forward and backward on each device."""

from __future__ import annotations

from typing import Any

import pytest

import asyncmod as mx
from tests.golden.arrays import HERE, arrays, cases, tolerance
from tests.golden.module_coverage import covered, uncovered

CASES = cases("nets")

# One input of a ReLU in this net is -2.4e-7 in exact arithmetic, so that its sign in
# float32, and the gradient through it, is a matter of rounding; MXNet rounded up.
NUDGES = {"cifar_resnet20": ("stage1_unit1_2_bn_beta", 0, 2e-6)}


async def load(name: str, context: mx.Context) -> tuple[mx.Module, Any]:
    """A module with the recorded parameters, bound to the recorded inputs."""
    case = CASES[name]
    recorded = arrays(f"nets/{name}.npz")
    module = mx.Module(
        mx.symbol.load(HERE / "nets" / f"{name}-symbol.json"),
        data_names=case["data_names"],
        label_names=case["label_names"],
        context=context,
    )

    def shapes(names: list[str]) -> list[tuple[str, tuple[int, ...]]]:
        return [(n, recorded[f"in.{n}"].shape) for n in names]

    await module.bind(
        shapes(case["data_names"]),
        shapes(case["label_names"]),
        inputs_need_grad=True,
        # Indexes that an embedding looks up have no gradient.
        grad_req={n: "null" for n in case["data_names"] if f"grad.{n}" not in recorded},
    )
    await module.load_params(HERE / "nets" / case["params"])
    if name in NUDGES:
        parameter, position, amount = NUDGES[name]
        values, _ = await module.get_params()
        values[parameter][position] += amount
        await module.set_params(values, None, allow_missing=True)
    return module, recorded


@pytest.mark.parametrize("name", covered("nets"))
async def test_net_computes_what_mxnet_did(name: str, recorded_on: mx.Context) -> None:
    case = CASES[name]
    close = tolerance(case)
    async with mx.open_runtime():
        module, recorded = await load(name, recorded_on)
        batch = mx.io.DataBatch(
            [recorded[f"in.{n}"] for n in case["data_names"]],
            [recorded[f"in.{n}"] for n in case["label_names"]],
        )
        predicted = await module.predict(batch)
        for i, array in enumerate(predicted):
            close.check(f"pred.{i}", array, recorded[f"pred.{i}"])
        await module.forward_backward(batch)
        for i, array in enumerate(await module.get_outputs()):
            close.check(f"out.{i}", array, recorded[f"out.{i}"])
        gradients: dict[str, Any] = dict(await module.get_grads())
        inputs = await module.get_input_grads()
        for n, gradient in zip(case["data_names"], inputs, strict=True):
            if gradient is not None:
                gradients[n] = gradient
        keys = [k for k in recorded if k.startswith("grad.")]
        assert {k[len("grad.") :] for k in keys} == gradients.keys()
        for key in keys:
            close.check(key, gradients[key[len("grad.") :]], recorded[key])
        _, auxiliaries = await module.get_params()
        for n, array in auxiliaries.items():
            close.check(f"auxout.{n}", array, recorded[f"auxout.{n}"])


def test_list_of_uncovered_cases_is_current() -> None:
    """Shrink the list: `python -m tests.golden.module_coverage > ...uncovered.txt`."""
    listed = (HERE / "modules_uncovered.txt").read_text().splitlines()
    assert [" ".join([name, *lacks]) for name, lacks in uncovered().items()] == listed
