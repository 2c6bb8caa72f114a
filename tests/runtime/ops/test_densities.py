"""Densities: what MXNet gave, and what is no shape for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.errors import ShapeError
from runtime.ops.densities import DENSITIES
from tests.golden.density_cases import CASES
from tests.runtime.ops.recorded import check, run


def test_every_density_has_a_case() -> None:
    assert {f"random_pdf_{kind.name}" for kind in DENSITIES} == {
        operator for operator, *_ in CASES.values()
    }


@pytest.mark.parametrize("name", CASES)
def test_as_in_mxnet(name: str) -> None:
    """MXNet has log(2 pi) and the coefficients of digamma in single precision."""
    check("densities.npz", name, CASES[name], outputs=1e-7, gradients=1e-5)


def test_half_precision_is_computed_in_single() -> None:
    x = np.array([[6.0, 7.0]], np.float16)
    mean = np.zeros(1, np.float16)
    (density,) = run("random_pdf_normal", x, mean, mean + 1, is_log=True).outputs
    assert density.dtype == np.float16
    np.testing.assert_allclose(density, [[-18.92, -25.42]], rtol=1e-3)


@pytest.mark.parametrize(
    ("operator", "shapes", "told"),
    [
        ("random_pdf_normal", [(2, 3), (3,), (3,)], r"\(3,\) do not fit.*\(2, 3\)"),
        ("random_pdf_normal", [(2, 3), (2,), (3,)], r"\(2,\).*\(3,\)"),
        ("random_pdf_poisson", [(2,), (2, 3)], "must be the first ones"),
        ("random_pdf_dirichlet", [(2, 4, 3), (2, 4)], "and the last one that of one"),
    ],
)
def test_shapes_that_do_not_fit(operator: str, shapes: list[Any], told: str) -> None:
    with pytest.raises(ShapeError, match=told):
        run(operator, *(np.ones(shape) for shape in shapes))
