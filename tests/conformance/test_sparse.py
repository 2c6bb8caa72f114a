"""CSR inputs, row-sparse gradients and their updates, on every device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from numpy.typing import NDArray

from asyncmod import symbol as sym
from runtime.devices.contract import Device, Program
from runtime.devices.factory import create_device
from runtime.errors import DeviceError
from runtime.executor.row_sparse import clear_gradient, read_gradient, write_gradient
from runtime.graph.compile import Request, compile_plan
from runtime.graph.face import row_numbers
from runtime.graph.plan import Layout
from runtime.graph.update import plan_update
from runtime.ops.update import get_rule
from runtime.row_sparse import RowSparseNDArray

Array = NDArray[Any]
ROWS, FEATURES, OUT = 5, 8, 3


def matrix(dtype: str = "float32", seed: int = 0) -> Any:
    return scipy.sparse.random(
        ROWS, FEATURES, 0.3, "csr", dtype, np.random.default_rng(seed)
    )


def weight(dtype: str = "float32") -> Array:
    return np.random.default_rng(1).normal(size=(FEATURES, OUT)).astype(dtype)


def compiled(
    device: Device,
    net: sym.Symbol,
    request: str = "write",
    csr: bool = True,
    guards: int = 0,
    dtype: str = "float32",
    shape: tuple[int, ...] = (ROWS, FEATURES),
) -> Program:
    plan = compile_plan(
        Request(
            net.graph,
            ("x",),
            {"x": shape, "w": (FEATURES, OUT)},
            {"x": dtype, "w": dtype},
            {"w": request},  # type: ignore[dict-item]
            True,
            native=device.native,
            csr=frozenset({"x"} if csr else ()),
            guards=guards,
        )
    )
    return device.compile(plan, slots=2)


def step(program: Program, x: Any, w: Array, slot: int = 0) -> Array:
    """Forward and backward with a head gradient of ones; gives the output."""
    program.write("parameter", "w", w)
    program.write("input", "x", x, slot)
    for name, tensor in program.plan.tensors["head"].items():
        program.write("head", name, np.ones(tensor.shape))
    program.launch("step", slot)
    (name,) = program.plan.output_names
    return program.read("output", name, slot)


x, w = sym.Variable("x"), sym.Variable("w")
# Names of nodes count up; other tests have theirs.
with sym.NameManager():
    PRODUCTS = {
        "dot": sym.dot(x, w),
        "square": sym.dot(sym.square(x), w),
        "scaled": sym.dot(x * 3, w),
        "tanh": sym.dot(sym.tanh(x), w),
        "twice": sym.dot(x, w) + sym.dot(sym.sign(x), w),
        "squares": sym.dot(x, sym._internal._square_sum(w, axis=(1,), keepdims=True)),
        "made dense": sym.FullyConnected(
            x, sym.transpose(w), num_hidden=OUT, no_bias=True
        ),
    }


@pytest.mark.parametrize("guards", [0, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_csr_gives_what_a_dense_matrix_gives(
    device: Device, name: str, dtype: str, guards: int
) -> None:
    net = PRODUCTS[name]
    sparse = compiled(device, net, guards=guards, dtype=dtype)
    dense = compiled(device, net, csr=False, dtype=dtype)
    for seed, slot in ((0, 0), (1, 1), (2, 0)):
        x = matrix(dtype, seed)
        found = step(sparse, x, weight(dtype), slot)
        expected = step(dense, x.toarray(), weight(dtype), slot)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        gradient = dense.read("gradient", "w")
        if name == "made dense":
            found = sparse.read("gradient", "w")
        else:
            found = read_gradient(sparse, "w")
            assert found.indices.tolist() == np.unique(x.indices).tolist()
        np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=1e-6)


def test_products_with_a_transposed_matrix(device: Device) -> None:
    net = sym.dot(sym.Variable("x"), sym.Variable("w"), transpose_a=True)
    x = matrix()
    w = np.random.default_rng(1).normal(size=(ROWS, OUT)).astype(np.float32)
    request = Request(
        net.graph,
        ("x",),
        {"x": x.shape, "w": w.shape},
        gradients={"w": "write"},
        is_train=True,
        native=device.native,
        csr=frozenset({"x"}),
    )
    program = device.compile(compile_plan(request))
    found = step(program, x, w)
    np.testing.assert_allclose(found, x.toarray().T @ w, rtol=1e-5, atol=1e-6)
    expected = x.toarray() @ np.ones((FEATURES, OUT))
    np.testing.assert_allclose(program.read("gradient", "w"), expected, rtol=1e-5)


def test_the_matrix_is_copied(device: Device) -> None:
    program = compiled(device, PRODUCTS["dot"])
    x = matrix()
    expected = step(program, x, weight())
    program.write("input", "x", x)
    x.data[:] = np.nan
    program.launch("forward")
    (name,) = program.plan.output_names
    np.testing.assert_array_equal(program.read("output", name), expected)


def test_a_matrix_that_was_never_written(device: Device) -> None:
    program = compiled(device, PRODUCTS["dot"])

    def run() -> None:
        program.launch("forward")
        program.wait()

    with pytest.raises(DeviceError, match="CSR input `x` was never written"):
        run()


def table(sparse_grad: bool = True) -> sym.Symbol:
    net = sym.Embedding(
        x, w, input_dim=FEATURES, output_dim=OUT, sparse_grad=sparse_grad
    )
    return net * net


INDEXES = np.array([[1, 6], [6, 6], [0, 1]], np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rows_of_a_table_are_the_dense_gradient(device: Device, dtype: str) -> None:
    shape = INDEXES.shape
    sparse = compiled(device, table(), csr=False, dtype=dtype, shape=shape)
    dense = compiled(device, table(False), csr=False, dtype=dtype, shape=shape)
    for _ in range(2):
        step(sparse, INDEXES, weight(dtype))
        step(dense, INDEXES, weight(dtype))
        found = read_gradient(sparse, "w")
        assert found.indices.tolist() == [0, 1, 6]
        np.testing.assert_array_equal(found, dense.read("gradient", "w"))


def test_rows_accumulate(device: Device) -> None:
    sparse = compiled(device, table(), "add", csr=False, shape=INDEXES.shape)
    expected = np.zeros((FEATURES, OUT), np.float32)
    for shift in (0, 1):
        dense = compiled(device, table(False), csr=False, shape=INDEXES.shape)
        step(dense, INDEXES + shift, weight())
        expected += dense.read("gradient", "w")
        step(sparse, INDEXES + shift, weight())
    found = read_gradient(sparse, "w")
    assert found.indices.tolist() == [0, 1, 2, 6, 7]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    clear_gradient(sparse, "w")
    assert read_gradient(sparse, "w").indices.size == 0


def test_a_place_that_is_shared_takes_a_dense_gradient(device: Device) -> None:
    """Another graph of the same parameters reads the table densely."""
    for request, times in (("write", 1), ("add", 2)):
        plan = compile_plan(
            Request(
                table(False).graph,
                ("x",),
                {"x": INDEXES.shape},
                gradients={"w": request},  # type: ignore[dict-item]
                is_train=True,
                native=device.native,
                gradient_rows=row_numbers([("w", (FEATURES, OUT), "float32")]),
            )
        )
        program = device.compile(plan)
        dense = compiled(device, table(False), csr=False, shape=INDEXES.shape)
        step(dense, INDEXES, weight())
        for _ in range(2):
            step(program, INDEXES, weight())
        expected = times * dense.read("gradient", "w")
        np.testing.assert_allclose(read_gradient(program, "w"), expected, rtol=1e-6)


def test_on_the_cpu_a_table_needs_no_python() -> None:
    device = create_device("cpu")
    if device.native is None:
        pytest.skip("needs numba")
    sizes = {"input_dim": FEATURES, "output_dim": OUT}
    for net in (
        sym.Embedding(x, w, sparse_grad=True, **sizes),
        sym.contrib.SparseEmbedding(x, w, **sizes),
    ):
        program = compiled(device, net, csr=False, shape=INDEXES.shape)
        assert program.plan.all_native
        assert "w" in program.plan.tensors["gradient_rows"]


RULES = {
    "sgd": ((0.1, 0.02, 0.5, 0.4, 0.9), ("momentum",)),
    "adam": ((0.1, 0.02, 0.5, 0.4, 0.9, 0.99, 1e-3), ("mean", "variance")),
    "adagrad": ((0.1, 0.02, 0.5, 0.4, 1e-3), ("history",)),
    "groupadagrad": ((0.1, 0.0, 0.5, 0.4, 1e-3), ("history",)),
    "ftrl": ((0.1, 0.02, 0.5, 0.4, 0.05, 1.0), ("leader", "squares")),
}


def rows(indices: list[int], seed: int) -> RowSparseNDArray:
    values = np.random.default_rng(seed).normal(size=(len(indices), OUT))
    return RowSparseNDArray(
        np.array(indices, np.int64), values.astype(np.float32), (FEATURES, OUT)
    )


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_updates(device: Device, name: str, lazy: bool, parts: int) -> None:
    """Two devices' gradients, in parts: as the formula on some rows, or on all."""
    hyper, states = RULES[name]
    layout = Layout.pack("parameter", [("w", (FEATURES, OUT), "float32")])
    numbers = row_numbers([("w", (FEATURES, OUT), "float32")])
    shared: Any = None
    programs = []
    for part in range(parts):
        plan = plan_update(
            name,
            layout,
            ["w"],
            states=states,
            hyper=len(hyper),
            devices=2,
            part=part,
            parts=parts,
            whole=not get_rule(name).elementwise,
            native=device.native,
            gradient_rows=numbers,
            lazy=lazy,
        )
        programs.append(device.compile(plan, shared))
        programs[-1].write("hyper", "hyper", np.array([hyper]))
        own = ("hyper", "scaled", "beside", "beside_rows", "wide")
        shared = {k: s for k, s in programs[0].segments.items() if k not in own}
    first = programs[0]
    first.write("parameter", "w", weight())
    expected = weight()
    expected_states = [np.zeros_like(expected) for _ in states]
    for one, two in ((rows([1, 5], 1), rows([2, 5], 2)), (rows([], 3), rows([5], 4))):
        for k, gradient in enumerate((one, two)):
            write_gradient(first, "w", gradient, f".{k}")
        for section in ("prepare", "update"):
            for program in programs:
                program.launch(section)
                program.wait()
        total = one + two
        where: Any = total.indices if lazy else slice(None)
        after, after_states = get_rule(name).apply(
            expected[where],
            np.asarray(total)[where],
            [state[where] for state in expected_states],
            hyper,
        )
        expected[where] = after
        for state, new in zip(expected_states, after_states, strict=True):
            state[where] = new
        # A kernel's mean over a row is summed in another order.
        rtol = 1e-6 if name == "groupadagrad" else 0
        np.testing.assert_allclose(first.read("parameter", "w"), expected, rtol=rtol)
    for state, value in zip(states, expected_states, strict=True):
        found = first.read(f"state.{state}", "w")
        np.testing.assert_allclose(found, value, rtol=rtol)
