"""mx.bind: single graphs, with every argument an input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.errors import (
    ArgumentError,
    ClosedError,
    InputError,
    ModuleStateError,
    NameMismatchError,
)

KINDS = {"cpu": mx.cpu, "reference": mx.reference}


def affine() -> mx.symbol.Symbol:
    data, weight = mx.sym.Variable("data"), mx.sym.Variable("weight")
    return mx.sym.FullyConnected(data, weight=weight, no_bias=True, num_hidden=3)


def two(seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    data, weight = random.normal(size=(4, 5)), random.normal(size=(3, 5))
    return data.astype(np.float32), weight.astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
async def test_forward_and_backward(kind: str) -> None:
    data, weight = two()
    heads = np.ones((4, 3), np.float32)
    async with mx.bind(affine(), [data, weight], context=KINDS[kind](0)) as executor:
        [out] = await executor.forward(is_train=True)
        np.testing.assert_allclose(out, data @ weight.T, rtol=1e-5, atol=1e-6)
        gradients = await executor.backward(heads)
        assert list(gradients) == ["data", "weight"]
        np.testing.assert_allclose(gradients["data"], heads @ weight, rtol=1e-5)
        np.testing.assert_allclose(
            gradients["weight"], heads.T @ data, rtol=1e-5, atol=1e-6
        )
        [kept] = await executor.forward(data=2 * data)
        np.testing.assert_allclose(kept, 2 * out, rtol=1e-5, atol=1e-6)
        # New values stay, in both modes.
        [again] = await executor.forward(is_train=True)
        np.testing.assert_allclose(again, kept, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
async def test_requests(kind: str) -> None:
    data, weight = two()
    heads = np.ones((4, 3), np.float32)
    arguments = {"data": data, "weight": weight}
    async with mx.bind(
        affine(), arguments, grad_req={"weight": "add"}, context=KINDS[kind](0)
    ) as executor:
        for turn in range(1, 4):
            await executor.forward(is_train=True)
            gradients = await executor.backward([heads])
            assert list(gradients) == ["weight"]
            expected = turn * (heads.T @ data)
            np.testing.assert_allclose(
                gradients["weight"], expected, rtol=1e-5, atol=1e-5
            )
        await executor.zero_grad()
        await executor.forward(is_train=True)
        gradients = await executor.backward([heads])
        np.testing.assert_allclose(
            gradients["weight"], heads.T @ data, rtol=1e-5, atol=1e-6
        )


async def test_nothing_is_wanted() -> None:
    async with mx.bind(affine(), two(), grad_req="null") as executor:
        await executor.forward()
        with pytest.raises(ModuleStateError, match="is_train=True"):
            await executor.backward(np.ones((4, 3)))


@pytest.mark.parametrize("kind", KINDS)
async def test_training_mode_needs_no_gradients(kind: str) -> None:
    net = mx.sym.Dropout(mx.sym.Variable("data"), p=0.5)
    data = np.ones((8, 9), np.float32)
    async with mx.bind(
        net, [data], grad_req="null", context=KINDS[kind](0)
    ) as executor:
        [dropped] = await executor.forward(is_train=True)
        assert set(np.unique(dropped)) == {0, 2}
        assert await executor.backward() == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_auxiliary_states(kind: str) -> None:
    net = mx.sym.BatchNorm(mx.sym.Variable("data"), name="bn", momentum=0.5)
    data, _ = two()
    given = {"data": data, "bn_gamma": [1.0] * 5, "bn_beta": [0.0] * 5}
    before = {"bn_moving_mean": [3.0] * 5, "bn_moving_var": [1.0] * 5}
    async with mx.bind(net, given, aux=before, context=KINDS[kind](0)) as executor:
        await executor.forward(is_train=True)
        assert (await executor.aux())["bn_moving_mean"][0] == 3
        await executor.backward(np.ones((4, 5), np.float32))
        after = await executor.aux()
        np.testing.assert_allclose(
            after["bn_moving_mean"], 1.5 + data.mean(0) / 2, rtol=1e-5
        )


async def test_arguments_that_cannot_be() -> None:
    data, weight = two()
    cases: list[tuple[Any, Any, type[Exception], str]] = [
        ([data], {}, NameMismatchError, "1 arrays for 2 names"),
        ({"data": data}, {}, NameMismatchError, r"lacks \['weight'\]"),
        ({"data": data, "weight": weight, "z": data}, {}, NameMismatchError, "'z'"),
        (5, {}, TypeError, "dict by name or a list"),
        ([data, weight], {"grad_req": "wirte"}, ArgumentError, "wirte"),
        ([data, weight], {"grad_req": {"z": "add"}}, NameMismatchError, "`z`"),
        ([data, weight], {"aux": {"m": data}}, NameMismatchError, "'m'"),
        ([data, weight[:, :4]], {}, ValueError, r"`weight`.*\(3, 4\)"),
        ([data, ["a"]], {}, InputError, "`weight` has dtype"),
    ]
    for args, options, error, match in cases:
        with pytest.raises(error, match=match):
            await mx.bind(affine(), args, **options).__aenter__()
    async with mx.bind(affine(), [data, weight]) as executor:
        with pytest.raises(NameMismatchError, match="`z` is no argument"):
            await executor.forward(z=data)
        with pytest.raises(InputError, match=r"\(3, 5\), bound is \(4, 5\)"):
            await executor.forward(data=weight)
        with pytest.raises(ModuleStateError, match="before it"):
            await executor.backward()
        await executor.forward(is_train=True)
        with pytest.raises(InputError, match="2 arrays for 1"):
            await executor.backward([data, data])
    with pytest.raises(ClosedError):
        await executor.forward()


async def test_values_are_copies() -> None:
    """What the caller does with its arrays afterwards changes nothing."""
    first, second = np.ones(3, np.float32), np.full(3, 2, np.float32)
    net = mx.sym.Variable("left") + mx.sym.Variable("right")
    async with mx.bind(net, {"left": first, "right": first}) as executor:
        first[:] = 100
        [output] = await executor.forward()
        np.testing.assert_array_equal(output, [2, 2, 2])
        await executor.forward(left=second)
        second[:] = 100
        [output] = await executor.forward()
        np.testing.assert_array_equal(output, [3, 3, 3])


async def test_a_refused_forward_keeps_no_value() -> None:
    ones = np.ones(3, np.float32)
    net = mx.sym.Variable("left") + mx.sym.Variable("right")
    async with mx.bind(net, {"left": ones, "right": ones}) as executor:
        with pytest.raises(mx.errors.InputError):
            await executor.forward(left=ones * 5, right=np.ones(4, np.float32))
        [output] = await executor.forward()
        np.testing.assert_array_equal(output, [2, 2, 2])


async def test_each_of_two_tasks_gets_its_own_outputs() -> None:
    data = mx.sym.Variable("data")
    context = mx.reference(0)
    async with mx.bind(data * 2, {"data": np.zeros(3)}, context=context) as executor:

        async def ask(task: int) -> None:
            for _ in range(20):
                [output] = await executor.forward(data=np.full(3, task))
                np.testing.assert_array_equal(output, [2 * task] * 3)

        async with trio.open_nursery() as nursery:
            for task in range(3):
                nursery.start_soon(ask, task)
