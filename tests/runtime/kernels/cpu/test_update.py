"""The fused sum of gradients and SGD step against NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.kernels.cpu.conftest import Kernels, Memory


def expected_step(w, mom, gradients, lr, wd, rescale, clip, mu):
    """MXNet's SGD in float64: the new weight and momentum."""
    g = sum(np.asarray(part, np.float64) for part in gradients) * rescale
    if clip >= 0:
        g = np.clip(g, -clip, clip)
    if mom is None:
        return (1 - lr * wd) * w.astype(np.float64) - lr * g, None
    mom = mu * mom.astype(np.float64) - lr * (g + wd * w.astype(np.float64))
    return w + mom, mom


@pytest.mark.parametrize("clip", [-1.0, 0.0, 0.02])
@pytest.mark.parametrize("momentum", [None, 0.9])
@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 100), devices=st.integers(1, 3), parts=st.integers(1, 4))
def test_sgd(kernels: Kernels, n, devices, parts, momentum, clip):
    memory, random = Memory(), np.random.default_rng(n)
    w = memory.array(random.normal(size=n))
    mom = None if momentum is None else memory.array(random.normal(size=n))
    gradients = [memory.array(random.normal(size=n)) for _ in range(devices)]
    addresses = memory.array([g.ctypes.data for g in gradients], np.int64)
    hyper = memory.array([0.1, 0.01, 1 / 32, clip, momentum or 0], np.float64)
    new_w, new_mom = expected_step(w, mom, gradients, *hyper)
    whole_w = memory.array(w)
    whole_mom = 0 if mom is None else memory.array(mom)

    bounds = np.linspace(0, n, parts + 1).astype(int)
    for begin, end in itertools.pairwise(bounds):
        kernels(
            "sgd",
            weight=w,
            momentum_state=0 if mom is None else mom,
            gradients=addresses,
            devices=devices,
            begin=int(begin),
            end=int(end),
            hyper=hyper,
        )

    np.testing.assert_allclose(w, new_w, rtol=1e-5, atol=1e-6)
    if mom is not None:
        np.testing.assert_allclose(mom, new_mom, rtol=1e-5, atol=1e-6)
    kernels(
        "sgd",
        weight=whole_w,
        momentum_state=whole_mom,
        gradients=addresses,
        devices=devices,
        begin=0,
        end=n,
        hyper=hyper,
    )
    np.testing.assert_array_equal(w, whole_w)
    memory.check()
