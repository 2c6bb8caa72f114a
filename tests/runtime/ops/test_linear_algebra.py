"""Operators on matrices, moments, sums and pieces: what MXNet gave, and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.errors import OperatorError, ShapeError
from runtime.graph import registry
from runtime.ops import (
    attention,
    matrix_decompositions,
    matrix_factors,
    matrix_parts,
    matrix_products,
)
from tests.golden.linear_algebra_cases import CASES
from tests.runtime.ops.interpreter import backward
from tests.runtime.ops.recorded import check, run

ROWS = (
    *matrix_products.OPERATORS,
    *matrix_factors.OPERATORS,
    *matrix_parts.OPERATORS,
    *matrix_decompositions.OPERATORS,
)


def test_every_operator_has_a_case() -> None:
    assert {f"linalg_{row.name}" for row in ROWS} <= {c[0] for c in CASES.values()}


@pytest.mark.parametrize("name", CASES)
def test_as_in_mxnet(name: str) -> None:
    """MXNet computes attention in single precision alone."""
    case = CASES[name]
    rounding = {"outputs": 1e-5, "gradients": 1e-5} if "interleaved" in case[0] else {}
    check("linear_algebra.npz", name, case, **rounding)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_slopes(name: str) -> None:
    operator, inputs, attributes = CASES[name]
    generator = np.random.default_rng(3)
    done = run(operator, *inputs, **attributes)
    heads = [generator.normal(size=output.shape) for output in done.outputs]
    names = {f"in{i}" for i in range(len(inputs))}
    grads = backward(done, heads, names)
    directions = [generator.normal(size=array.shape) for array in inputs]
    if operator in ("linalg_potrf", "linalg_syevd"):  # of symmetric matrices alone
        directions = [d + np.swapaxes(d, -1, -2) for d in directions]
    if operator == "linalg_potri":
        directions = [np.tril(d) for d in directions]

    def value(step: float) -> float:
        moved = [a + step * d for a, d in zip(inputs, directions, strict=True)]
        outputs = run(operator, *moved, **attributes).outputs
        return sum(float((h * o).sum()) for h, o in zip(heads, outputs, strict=True))

    numeric = (value(1e-6) - value(-1e-6)) / 2e-6
    along = sum(
        float((grads[f"in{i}"] * direction).sum())
        for i, direction in enumerate(directions)
    )
    np.testing.assert_allclose(along, numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("operator", "shapes", "attributes", "told"),
    [
        ("linalg_gemm2", [(2, 3), (4, 5)], {}, r"\(2, 3\) and \(4, 5\) cannot be mult"),
        ("linalg_gemm2", [(3, 4), (4,)], {}, r"\(3, 4\) and \(4,\) must have as many"),
        ("linalg_gemm2", [(3,), (3, 4)], {}, r"two axes or more.*\(3,\)"),
        ("linalg_gemm2", [(3, 4), (4, 5)], {"axis": 7}, r"`axis` \(=7\)"),
        ("linalg_gemm2", [(4, 4), (4, 4)], {"axis": -1}, r"\(=-1\) must not name"),
        ("linalg_syrk", [(3,)], {}, r"two axes or more.*\(3,\)"),
        ("linalg_trmm", [(3, 3), (3,)], {}, r"two axes or more.*\(3,\)"),
        ("linalg_gemm", [(2, 3), (3, 4), (4, 4)], {}, r"\(4, 4\) and shape \(2, 4\)"),
        ("linalg_potrf", [(2, 3)], {}, r"must be square, but the shape is \(2, 3\)"),
        ("linalg_trsm", [(3, 3), (2, 3)], {}, r"\(2, 3\) does not fit"),
        ("linalg_extractdiag", [(3, 3)], {"offset": 3}, "names no diagonal"),
        ("linalg_maketrian", [(2, 5)], {}, "5 numbers do not fill a triangle"),
        ("linalg_gelqf", [(3, 2)], {}, r"more rows than columns, as \(3, 2\) has"),
        ("linalg_syevd", [(3, 2)], {}, r"must be square, but the shape is \(3, 2\)"),
        ("khatri_rao", [(3, 2), (3, 1)], {"num_args": 2}, "as many columns"),
        ("khatri_rao", [(3, 2), (2,)], {"num_args": 2}, "two axes"),
        (
            "_contrib_interleaved_matmul_selfatt_qk",
            [(3, 2, 25)],
            {"heads": 2},
            r"\(3, 2, 25\) is not \(length, batch, heads x 3 x size\)",
        ),
        (
            "_contrib_interleaved_matmul_encdec_qk",
            [(3, 2, 8), (3, 3, 16)],
            {"heads": 2},
            "queries and keys of shapes",
        ),
        (
            "_contrib_interleaved_matmul_selfatt_valatt",
            [(3, 2, 24), (4, 3, 2)],
            {"heads": 2},
            r"attention of shape \(4, 3, 2\) does not fit",
        ),
        ("moments", [(2, 3)], {}, "`axes` must name one axis"),
        ("cumsum", [(2, 3)], {"axis": 2}, r"`axis` \(=2\)"),
        ("_split_v2", [(3, 5)], {"indices": (0, 7), "axis": 1}, "stay below 5"),
        ("_split_v2", [(3, 5)], {"indices": (), "sections": 2}, "into 2 equal"),
        ("_ravel_multi_index", [(3, 5)], {"shape": (2, 2)}, "2 rows of indices"),
    ],
)
def test_shapes_that_do_not_fit(
    operator: str, shapes: list[Any], attributes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ShapeError, match=told):
        run(operator, *(np.ones(shape) for shape in shapes), **attributes)


def test_a_summand_does_not_stand_for_an_unknown_factor() -> None:
    gemm = registry.get("linalg_gemm")
    inputs, outputs = gemm.shape(gemm.attributes(), [(2, 3), None, (2, 4)], [None])
    assert (inputs, outputs) == ([(2, 3), None, (2, 4)], [None])


@pytest.mark.parametrize("name", ["gemm", "potrf", "det", "trsm_000", "makediag_1"])
def test_half_precision(name: str) -> None:
    """There are no solvers for it, so that float32 is what is computed in."""
    operator, inputs, attributes = CASES[name]
    half = [array.astype(np.float16) for array in inputs]
    done = run(operator, *half, **attributes)
    wide = run(operator, *(array.astype(np.float32) for array in half), **attributes)
    (output,), (want,) = done.outputs, wide.outputs
    assert output.dtype == np.float16
    np.testing.assert_array_equal(output, want.astype(np.float16))
    names = {f"in{i}" for i in range(len(inputs))}
    grads = backward(done, [np.ones_like(output)], names)
    # A few half-precision ulps: a gradient may be that of the rounded output.
    for key, slopes in backward(wide, [np.ones_like(want)], names).items():
        assert grads[key].dtype == np.float16
        np.testing.assert_allclose(grads[key], slopes, rtol=0.01, atol=0.01)


def test_equal_eigenvalues() -> None:
    """Their vectors have no slope; what the values are does."""
    done = run("linalg_syevd", np.eye(2))
    grads = backward(done, [np.ones((2, 2)), np.array([1.0, 1.0])], {"in0"})
    np.testing.assert_array_equal(grads["in0"], np.eye(2))
    grads = backward(done, [None, np.array([2.0, 2.0])], {"in0"})
    np.testing.assert_array_equal(grads["in0"], 2 * np.eye(2))


def test_no_parts() -> None:
    with pytest.raises(OperatorError, match="one part or more"):
        run("_split_v2", np.ones((3, 5)), indices=())


def test_flat_indices() -> None:
    indices = np.array([[3, 6, 6], [4, 5, 1]])
    (flat,) = run("_ravel_multi_index", indices, shape=(7, 6)).outputs
    assert flat.tolist() == [22, 41, 37]  # the example of MXNet's documentation
    (back,) = run("_unravel_index", flat, shape=(7, 6)).outputs
    np.testing.assert_array_equal(back, indices)
    (back,) = run("_unravel_index", flat.reshape(1, 3), shape=(-1, 6)).outputs
    np.testing.assert_array_equal(back, indices[:, None])


def test_arrays_without_inputs() -> None:
    (eye,) = run("_eye", N=2, M=3, k=1).outputs
    assert eye.tolist() == [[0, 1, 0], [0, 0, 1]]
    (eye,) = run("_eye", N=2, dtype="int32").outputs
    assert eye.dtype == np.int32
    (line,) = run("_linspace", start=1, stop=2, num=5).outputs
    assert line.tolist() == [1, 1.25, 1.5, 1.75, 2]
    (line,) = run("_linspace", start=1, stop=2, num=4, endpoint=False).outputs
    assert line.tolist() == [1, 1.25, 1.5, 1.75]
    with pytest.raises(OperatorError, match=r"`num` \(=0\)"):
        run("_linspace", start=1, stop=2, num=0)
    with pytest.raises(OperatorError, match=r"`N` \(=0\)"):
        run("_eye", N=0)


def test_all_are_covered_here() -> None:
    """So that the table of gradients need not have them."""
    covered = {registry.get(operator).name for operator, *_ in CASES.values()}
    assert "cumsum" in covered
    assert len(covered) == len(ROWS) + len(attention.OPERATORS) + 4
