"""Prediction in blocks of images against prediction of the whole batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import asyncmod.symbol as sym
from runtime.devices.contract import Program
from runtime.devices.cpu.native import CpuNative
from runtime.devices.factory import create_device
from runtime.graph.compile import Request, compile_plan
from runtime.graph.plan import NativeRow
from tests.conformance.nets import Net

SMALL, LARGE = 10_000, 1 << 40


def compiled(net: Net, cache_bytes: int, guards: int = 0) -> Program:
    """A prediction, planned for a cache of that size."""
    device = create_device("cpu")
    if device.native is None:
        pytest.skip("needs numba")
    plan = compile_plan(
        Request(
            graph=net.symbol.graph,
            inputs=tuple(net.inputs),
            shapes=net.inputs,
            gradients={},
            is_train=False,
            native=CpuNative(cache_bytes),
            guards=guards,
        )
    )
    program = device.compile(plan)
    net.load(program)
    program.launch("predict")
    return program


def images(program: Program, kernel: str) -> list[object]:
    """How many images the rows of a kernel take."""
    rows = program.plan.sections["predict"]
    native = [row for row in rows if isinstance(row, NativeRow)]
    return [
        row.operands.get("images", row.operands.get("outer"))
        for row in native
        if row.kernel == kernel
    ]


def layer(x: sym.Symbol, name: str, **attributes: object) -> sym.Symbol:
    given = {"kernel": (3, 3), "pad": (1, 1), "num_filter": 8, **attributes}
    return sym.Convolution(x, name=name, **given)


def separable(batch: int) -> Net:
    """Depthwise and 1x1 convolutions, a residual sum, poolings."""
    x = layer(sym.Variable("data"), "stem")
    y = sym.Activation(layer(x, "depthwise", num_group=8), act_type="relu")
    y = sym.BatchNorm(layer(y, "pointwise", kernel=(1, 1), pad=(0, 0)), name="norm")
    y = sym.Activation(x + y, act_type="tanh") + x
    y = sym.Pooling(y, kernel=(2, 2), stride=(2, 2), pool_type="max")
    y = sym.Pooling(y, global_pool=True, kernel=(1, 1), pool_type="avg")
    y = sym.FullyConnected(sym.Flatten(y), num_hidden=3, name="fc")
    return Net(y, {"data": (batch, 3, 10, 9)})


def outside(batch: int) -> Net:
    """What is between two convolutions is an output, too."""
    x = layer(sym.Variable("data"), "one")
    return Net(sym.Group([layer(x, "two"), x]), {"data": (batch, 3, 10, 9)})


def interrupted(batch: int) -> Net:
    """A row without a kernel, which takes all images at once, between kernels."""
    x = sym.LeakyReLU(layer(sym.Variable("data"), "one"), act_type="elu")
    x = layer(layer(x, "two"), "three")
    return Net(x, {"data": (batch, 3, 10, 9)})


@pytest.mark.parametrize("make", [separable, outside, interrupted])
@pytest.mark.parametrize("batch", [1, 2, 5, 33])
def test_blocks_give_the_same_bits(make: Callable[[int], Net], batch: int) -> None:
    net = make(batch)
    whole = compiled(net, LARGE)
    assert set(images(whole, "conv")) == {batch}
    for guards in (0, 64):
        blocks = compiled(net, SMALL, guards)
        assert blocks.plan.sections != whole.plan.sections or batch == 1
        for name in net.symbol.list_outputs():
            np.testing.assert_array_equal(
                blocks.read("output", name), whole.read("output", name)
            )


def test_blocks_are_as_large_as_the_cache_allows() -> None:
    x = layer(layer(sym.Variable("data"), "one"), "two")
    net = Net(x, {"data": (33, 3, 10, 9)})
    # The second layer reads 12 x 11 pixels, with the halo, and writes 10 x 9.
    image = 4 * 8 * (12 * 11 + 10 * 9)
    for size in (2, 5):
        for spare in (0, image - 1):
            counts = images(compiled(net, 2 * (size * image + spare)), "conv")
            assert counts[::2] == [size] * (33 // size) + [33 % size]


def test_there_are_no_more_than_some_blocks() -> None:
    program = compiled(separable(100), 1)
    assert images(program, "depthwise") == [4] * 25


def test_what_is_passed_on_needs_memory_for_one_block() -> None:
    net = separable(32)
    whole, blocks = (compiled(net, size).plan.segments for size in (LARGE, SMALL))
    assert blocks["halo"] < whole["halo"] / 8
    assert blocks["arena"] < whole["arena"] / 2


def test_dense_layers_stay_whole() -> None:
    x = sym.FullyConnected(sym.Variable("data"), num_hidden=8, name="one")
    x = sym.Activation(sym.Activation(x, act_type="relu"), act_type="tanh")
    net = Net(x, {"data": (4, 7)})
    whole, blocks = (compiled(net, size).plan.sections for size in (LARGE, 1))
    assert blocks == whole


def test_small_images_are_computed_pixel_by_pixel_for_the_whole_batch() -> None:
    x = layer(sym.Variable("data"), "one", num_filter=40)
    x = layer(layer(x, "two", num_filter=40), "three", num_filter=40)
    program = compiled(Net(x, {"data": (32, 40, 4, 4)}), 1)
    assert images(program, "conv") == [32] * 3
