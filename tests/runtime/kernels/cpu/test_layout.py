"""NCHW to and from image tensors."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.kernels.cpu.conftest import Kernels, Memory


@settings(max_examples=150, deadline=None)
@given(
    images=st.integers(1, 3),
    channels=st.integers(1, 33),
    height=st.integers(1, 9),
    width=st.integers(1, 33),
    halo=st.integers(0, 2),
    unpadded=st.booleans(),
)
def test_to_image_and_back(
    kernels: Kernels, images, channels, height, width, halo, unpadded
):
    memory, random = Memory(), np.random.default_rng(channels * width)
    shape = (images, channels, height, width)
    x = memory.array(random.normal(size=shape))
    y = memory.image(np.zeros(shape), halo, unpadded)
    y.interior[..., channels:] = 7  # must become zero
    sizes = dict(zip(("images", "channels", "height", "width"), shape, strict=True))
    kernels("to_image", x=x, **y.fields("y"), **sizes)
    np.testing.assert_array_equal(y.nchw, x)
    y.check_padding()

    back = memory.nans(*shape)
    kernels("from_image", **y.fields("x"), y=back, **sizes)
    np.testing.assert_array_equal(back, x)
    memory.check()
