"""Native rows that only move numbers: the bits of the reference."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncmod.symbol as sym
from runtime.devices.factory import create_device
from runtime.graph.plan import NativeRow
from tests.conformance.nets import Net
from tests.runtime.devices.agreement import check, quick, same

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@quick
@given(shapes, st.integers(-4, 3), st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_concat(shape: tuple[int, ...], axis: int, sizes: list[int]) -> None:
    axis %= len(shape)
    inputs = {
        f"x{i}": (*shape[:axis], size, *shape[axis + 1 :])
        for i, size in enumerate(sizes)
    }
    same(Net(sym.Concat(*map(sym.Variable, inputs), dim=axis), inputs))


def test_concat_of_one_array_twice_and_of_what_needs_no_gradient() -> None:
    a, b = sym.Variable("a"), sym.Variable("b")
    net = Net(sym.Concat(a, b, a, dim=1), {"a": (3, 4), "b": (3, 2)}, {"b": "null"})
    check(net)


@quick
@given(shapes, st.integers(-4, 3), st.integers(1, 4), st.integers(1, 9), st.booleans())
def test_slice_channel(
    shape: tuple[int, ...], axis: int, count: int, size: int, squeeze: bool
) -> None:
    axis %= len(shape)
    size = 1 if squeeze else size
    shape = (*shape[:axis], count * size, *shape[axis + 1 :])
    if squeeze and len(shape) == 1:
        return  # nothing would be left
    x = sym.SliceChannel(
        sym.Variable("data"), num_outputs=count, axis=axis, squeeze_axis=squeeze
    )
    same(Net(x, {"data": shape}))


@pytest.mark.parametrize("seen", [0, 1, 2])
def test_pieces_that_nobody_reads_get_no_gradient(seen: int) -> None:
    x = sym.SliceChannel(sym.Variable("data"), num_outputs=3, axis=1)
    same(Net(x[seen], {"data": (4, 6)}))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 1, 17, 20), (1, 35, 2, 33)])
def test_transpose(order: tuple[int, ...], shape: tuple[int, ...]) -> None:
    same(Net(sym.transpose(sym.Variable("data"), axes=order), {"data": shape}))


@quick
@given(shapes, st.integers(0, 3), st.integers(0, 3))
def test_swap_axis(shape: tuple[int, ...], one: int, other: int) -> None:
    one, other = one % len(shape), other % len(shape)
    same(Net(sym.SwapAxis(sym.Variable("data"), dim1=one, dim2=other), {"data": shape}))


def test_orders_of_more_axes_are_left_to_the_definition() -> None:
    x = sym.transpose(sym.Variable("data"), axes=(4, 3, 2, 1, 0))
    same(Net(x, {"data": (2, 3, 2, 3, 2)}), native=False)
    x = sym.transpose(sym.Variable("data"), axes=(3, 4, 2, 0, 1))
    same(Net(x, {"data": (2, 3, 2, 3, 2)}))


def test_between_images() -> None:
    x = sym.Convolution(
        sym.Variable("data"), num_filter=8, kernel=(3, 3), pad=(1, 1), name="one"
    )
    y = sym.Activation(x, act_type="relu")
    x = sym.Concat(y, sym.SwapAxis(x, dim1=2, dim2=3), dim=1)
    x = sym.Convolution(x, num_filter=2, kernel=(3, 3), pad=(1, 1), name="two")
    net = Net(x, {"data": (2, 3, 5, 5)})
    check(net)
    plan = net.compile(create_device("cpu"), True).plan
    kernels = {r.kernel for r in plan.sections["forward"] if isinstance(r, NativeRow)}
    assert {"copy", "permute", "conv"} <= kernels
