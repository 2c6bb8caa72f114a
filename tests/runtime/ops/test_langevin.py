"""The normal numbers of SGLD: those of the mathematical library, nearly."""

from __future__ import annotations

import numpy as np

from runtime.ops.updates.langevin import box_muller


def test_box_muller_is_exact_to_float32() -> None:
    """Over small, large and all kinds of numbers between, multiples of 2**-24."""
    random = np.random.default_rng(1)
    steps = np.concatenate(
        [np.arange(3000), 2**24 - 1 - np.arange(3000), random.integers(0, 2**24, 10**5)]
    )
    radius = (steps * 2.0**-24).astype(np.float32)
    angle = random.permutation(radius)
    exact = np.sqrt(-2 * np.log(1 - radius.astype(np.float64)))
    exact *= np.cos(2 * np.pi * angle.astype(np.float64))
    got = box_muller(radius, angle)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, exact, rtol=3e-7, atol=0)
