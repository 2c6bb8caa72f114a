"""pack_panels, gemm and column_sums against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.kernels.cpu.table import panel_width, panels_size
from tests.runtime.kernels.cpu.activations import activate, gradient
from tests.runtime.kernels.cpu.conftest import Kernels, Memory

EDGE = st.integers(1, 33)
fast = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def pack(kernels, memory, b):
    """B in panels, by the kernel."""
    k, n = b.shape
    panels = memory.nans(panels_size(k, n))
    row, column = (stride // 4 for stride in b.strides)
    kernels("pack_panels", b=b, b_row=row, b_column=column, panels=panels, k=k, n=n)
    return panels


def gemm(
    kernels,
    a,
    panels,
    c,
    *,
    bias=0,
    mask=0,
    epilogue=0,
    accumulate=0,
    transposed=0,
):
    """Run gemm; c may be a view of fewer columns than its rows hold.

    `panels` are packed ones, or a matrix that is read where it lies.
    """
    m, k = a.shape
    width = panel_width()
    packed = panels.ndim == 1
    kernels(
        "gemm",
        a=a,
        a_row=a.strides[0] // 4,
        a_column=a.strides[1] // 4,
        panels=panels,
        panel_size=k * width if packed else width,
        panel_row=width if packed else panels.strides[0] // 4,
        c=c,
        c_row=c.strides[0] // 4,
        m=m,
        k=k,
        n=c.shape[0] if transposed else c.shape[1],
        bias=bias,
        mask=mask,
        mask_row=0 if isinstance(mask, int) else mask.strides[0] // 4,
        epilogue=epilogue,
        accumulate=accumulate,
        transposed=transposed,
    )


@pytest.mark.parametrize("order", ["rows", "columns", "strided"])
@fast
@given(k=EDGE, n=st.integers(1, 70))
def test_panels(kernels: Kernels, k, n, order):
    memory = Memory()
    values = np.random.default_rng(k * n).normal(size=(k, n))
    if order == "rows":
        b = memory.array(values)
    elif order == "columns":
        b = memory.array(values.T).T
    else:
        b = memory.array(np.repeat(values, 2, axis=1))[:, ::2]
    width = panel_width()
    expected = np.zeros((k, -(-n // width) * width), np.float32)
    expected[:, :n] = b
    expected = expected.reshape(k, -1, width).transpose(1, 0, 2).ravel()
    np.testing.assert_array_equal(pack(kernels, memory, b), expected)
    memory.check()


@fast
@given(
    m=EDGE,
    k=EDGE,
    n=st.integers(1, 70),
    transposed=st.booleans(),
    biased=st.booleans(),
    epilogue=st.integers(0, 5),
    masked=st.booleans(),
    accumulate=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_gemm(
    kernels: Kernels, m, k, n, transposed, biased, epilogue, masked, accumulate, seed
):
    memory, random = Memory(), np.random.default_rng(seed)
    values = random.normal(size=(m, k))
    a = memory.array(values.T).T if transposed else memory.array(values)
    b = memory.array(random.normal(size=(k, n)))
    bias = memory.array(random.normal(size=n)) if biased else 0
    mask = memory.array(random.uniform(-0.9, 0.9, (m, n))) if masked else 0
    wide = memory.array(random.normal(size=(m, n + 3)))
    c, before = wide[:, :n], wide.copy()
    panels = pack(kernels, memory, b)

    gemm(
        kernels,
        a,
        panels,
        c,
        bias=bias,
        mask=mask,
        epilogue=epilogue,
        accumulate=accumulate,
    )

    expected = a.astype(np.float64) @ b + (bias if biased else 0)
    if masked:
        expected = expected * gradient(mask, epilogue)
    else:
        expected = activate(expected, epilogue)
    if accumulate:
        expected = expected + before[:, :n]
    np.testing.assert_allclose(c, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(wide[:, n:], before[:, n:])
    memory.check()


@fast
@given(
    m=st.integers(1, 130),
    k=EDGE,
    n=st.integers(1, 70),
    flipped=st.booleans(),
    biased=st.booleans(),
    epilogue=st.integers(0, 5),
    masked=st.booleans(),
    accumulate=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_transposed_gemm(
    kernels: Kernels, m, k, n, flipped, biased, epilogue, masked, accumulate, seed
):
    memory, random = Memory(), np.random.default_rng(seed)
    values = random.normal(size=(m, k))
    a = memory.array(values.T).T if flipped else memory.array(values)
    b = memory.array(random.normal(size=(k, n)))
    bias = memory.array(random.normal(size=m)) if biased else 0
    mask = memory.array(random.uniform(-0.9, 0.9, (n, m))) if masked else 0
    wide = memory.array(random.normal(size=(n, m + 3)))
    c, before = wide[:, :m], wide.copy()
    gemm(
        kernels,
        a,
        pack(kernels, memory, b),
        c,
        bias=bias,
        mask=mask,
        epilogue=epilogue,
        accumulate=accumulate,
        transposed=1,
    )

    expected = (a.astype(np.float64) @ b).T + (bias if biased else 0)
    if masked:
        expected = expected * gradient(mask, epilogue)
    else:
        expected = activate(expected, epilogue)
    if accumulate:
        expected = expected + before[:, :m]
    np.testing.assert_allclose(c, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(wide[:, m:], before[:, m:])
    memory.check()


def test_transposed_gemm_rounds_as_the_other(kernels, memory, random):
    x, weight = (memory.array(random.normal(size=(s, 300))) for s in (40, 50))
    bias = memory.array(random.normal(size=50))
    one, other = memory.nans(40, 50), memory.nans(40, 50)
    gemm(kernels, x, pack(kernels, memory, weight.T), one, bias=bias)
    panels = pack(kernels, memory, x.T)
    gemm(kernels, weight, panels, other, bias=bias, transposed=1)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("panels", [1, 3])
@pytest.mark.parametrize("k", [5, 9000])
def test_gemm_reads_panels_where_they_lie(kernels, memory, random, k, panels):
    n = panels * panel_width()
    a = memory.array(random.normal(size=(17, k)))
    b = memory.array(random.normal(size=(k, n)))
    packed, in_place = memory.nans(17, n), memory.nans(17, n)
    gemm(kernels, a, pack(kernels, memory, b), packed)
    gemm(kernels, a, b, in_place)
    np.testing.assert_array_equal(packed, in_place)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("accumulate", [0, 1])
@pytest.mark.parametrize("epilogue", [0, 1])
@pytest.mark.parametrize("n", [40, 64])
def test_gemm_deeper_than_the_cache(
    kernels, memory, random, n, epilogue, accumulate, transposed
):
    m, k = 61, 9000
    a = memory.array(random.normal(size=(m, k)))
    b = memory.array(random.normal(size=(k, n)))
    bias = memory.array(random.normal(size=n))
    if transposed:
        a, b = b.T, a.T
    c = memory.array(random.normal(size=(m, n)))
    before = c.copy()
    panels = pack(kernels, memory, b)
    options = {"bias": bias, "epilogue": epilogue, "accumulate": accumulate}
    gemm(kernels, a, panels, c, **options, transposed=transposed)
    product = a.astype(np.float64) @ b
    expected = activate((product.T if transposed else product) + bias, epilogue)
    expected += before * accumulate
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(300, 64, 131), (131, 700, 160), (140, 2100, 130), (1100, 3, 1000)],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_gemm_in_blocks_of_rows(kernels, memory, random, m, k, n, transposed):
    values = random.normal(size=(m, k))
    a = memory.array(values.T).T if transposed else memory.array(values)
    b = memory.array(random.normal(size=(k, n)))
    c = memory.nans(m, n)
    gemm(kernels, a, pack(kernels, memory, b), c)
    expected = a.astype(np.float64) @ b
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4)


def test_gemm_keeps_nan_and_infinity(kernels, memory):
    a = memory.array([[np.nan, 1], [np.inf, 1], [0, 2], [-np.inf, 1]])
    b = memory.array(np.ones((2, 5)))
    c = memory.zeros(4, 5)
    gemm(kernels, a, pack(kernels, memory, b), c, epilogue=1)
    expected = np.array([np.nan, np.inf, 2, 0])[:, None] * np.ones(5)
    np.testing.assert_array_equal(c, expected)


@fast
@given(m=EDGE, n=st.integers(1, 70), accumulate=st.integers(0, 1))
def test_column_sums(kernels: Kernels, m, n, accumulate):
    memory, random = Memory(), np.random.default_rng(m * n)
    x = memory.array(random.normal(size=(m, n + 2)))[:, :n]
    sums = memory.array(random.normal(size=n))
    expected = x.sum(axis=0, dtype=np.float64) + accumulate * sums
    kernels(
        "column_sums",
        x=x,
        x_row=n + 2,
        sums=sums,
        m=m,
        n=n,
        accumulate=accumulate,
    )
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)
    memory.check()
