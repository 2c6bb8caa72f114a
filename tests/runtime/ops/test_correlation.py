"""Correlation against its definition, written as loops over single pixels."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tests.runtime.ops.interpreter import apply


@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize(
    ("kernel", "displacement", "stride1", "stride2", "pad"),
    [(1, 1, 1, 1, 0), (3, 2, 2, 2, 2), (1, 3, 1, 2, 3), (3, 1, 3, 2, 1)],
)
def test_patches_are_compared_at_every_displacement(
    kernel: int, displacement: int, stride1: int, stride2: int, pad: int, multiply: bool
) -> None:
    first, second = np.random.default_rng(2).normal(size=(2, 2, 3, 6, 7))
    (output,) = apply(
        "Correlation",
        first,
        second,
        kernel_size=str(kernel),
        max_displacement=str(displacement),
        stride1=str(stride1),
        stride2=str(stride2),
        pad_size=str(pad),
        is_multiply=str(multiply),
    ).outputs
    margin = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    first, second = np.pad(first, margin), np.pad(second, margin)
    reach = displacement // stride2
    shifts = [i * stride2 for i in range(-reach, reach + 1)]
    assert output.shape[1] == len(shifts) ** 2
    for channel, (down, right) in enumerate(product(shifts, shifts)):
        for i, j in np.ndindex(output.shape[2:]):
            y, x = i * stride1 + displacement, j * stride1 + displacement
            one = first[:, :, y : y + kernel, x : x + kernel]
            y, x = y + down, x + right
            other = second[:, :, y : y + kernel, x : x + kernel]
            assert one.shape == other.shape
            compared = one * other if multiply else np.abs(one - other)
            np.testing.assert_allclose(
                output[:, channel, i, j], compared.mean(axis=(1, 2, 3))
            )
