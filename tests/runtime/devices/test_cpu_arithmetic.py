"""Native products, sums with a number and constants: the bits of the reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncmod as mx
import asyncmod.symbol as sym
from runtime.devices.factory import create_device
from tests.conformance.nets import Net
from tests.runtime.devices.agreement import check, quick, same

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@quick
@given(shapes)
def test_product(shape: tuple[int, ...]) -> None:
    a, b = sym.Variable("a"), sym.Variable("b")
    same(Net(a * b, {"a": shape, "b": shape}))
    check(Net(a * b * a, {"a": shape, "b": shape}))


@pytest.mark.parametrize("unwanted", ["a", "b"])
def test_product_with_what_needs_no_gradient(unwanted: str) -> None:
    inputs = {"a": (3, 5), "b": (3, 5)}
    product = sym.Variable("a") * sym.Variable("b")
    same(Net(product, inputs, {unwanted: "null"}))


@pytest.mark.parametrize("number", [0.0, 1.0, -1.0, 0.1, 1e30])
@pytest.mark.parametrize("size", [1, 16, 35])
def test_with_a_number(number: float, size: int) -> None:
    x = sym.Variable("data")
    for result in (x + number, x - number, number - x, x * number):
        same(Net(result, {"data": (size,)}))


def test_constants() -> None:
    x = sym.Variable("data")
    same(Net(x * sym.ones((3, 4)) + sym.zeros((3, 4)), {"data": (3, 4)}))
    outputs = sym.Group([x * 2, sym.ones((2, 2)), sym.zeros((5,))])
    same(Net(outputs, {"data": (3, 4)}))


def test_product_of_images() -> None:
    def convolution(x: sym.Symbol, name: str) -> sym.Symbol:
        return sym.Convolution(x, num_filter=9, kernel=(3, 3), pad=(1, 1), name=name)

    x = convolution(sym.Variable("data"), "one")
    gate = sym.Activation(x, act_type="sigmoid")
    x = convolution(x * gate * 0.5, "two")
    check(Net(x, {"data": (2, 3, 6, 5)}))


@pytest.mark.parametrize("kind", [mx.rnn.LSTMCell, mx.rnn.GRUCell, mx.rnn.RNNCell])
def test_unrolled_cells_are_kernels_alone(kind: type) -> None:
    cells = mx.rnn.SequentialRNNCell()
    cells.add(kind(num_hidden=6, prefix="one_"))
    cells.add(mx.rnn.DropoutCell(0.2, prefix="drop_"))
    cells.add(kind(num_hidden=5, prefix="two_"))
    x = sym.Embedding(sym.Variable("data"), input_dim=7, output_dim=4, name="table")
    x, _ = cells.unroll(3, inputs=x, merge_outputs=True)
    x = sym.FullyConnected(sym.Reshape(x, shape=(-1, 5)), num_hidden=3, name="last")
    label = sym.Reshape(sym.Variable("softmax_label"), shape=(-1,))
    shapes = {"data": (2, 3), "softmax_label": (2, 3)}
    net = Net(sym.SoftmaxOutput(x, label, name="softmax"), shapes, {"data": "null"})
    check(net)
    assert net.compile(create_device("cpu"), True).plan.all_native
