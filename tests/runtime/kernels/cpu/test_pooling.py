"""Pooling kernels against loops over windows in NumPy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.kernels.cpu.table import padded
from tests.runtime.kernels.cpu.activations import activate, gradient
from tests.runtime.kernels.cpu.conftest import Kernels, Memory

fast = settings(max_examples=100, deadline=None)


@dataclass(frozen=True)
class Case:
    """One pooling; `full` rounds the output's size up."""

    images: int
    channels: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    full: bool

    @property
    def out(self) -> tuple[int, int]:
        """Output height and width."""
        result = []
        for n, k, s, p in zip(
            self.size, self.kernel, self.stride, self.pad, strict=True
        ):
            room = n + 2 * p - k
            result.append((-(-room // s) if self.full else room // s) + 1)
        return result[0], result[1]

    @property
    def possible(self) -> bool:
        """Whether every window meets the input."""
        return all(
            p < k <= n + 2 * p and (o - 1) * s - p < n
            for n, k, s, p, o in zip(
                self.size, self.kernel, self.stride, self.pad, self.out, strict=True
            )
        )

    def fields(self) -> dict[str, int]:
        """The sizes that the kernels share."""
        pairs = {"kernel": self.kernel, "stride": self.stride, "pad": self.pad}
        result = {
            f"{name}_{axis}": value
            for name, pair in pairs.items()
            for axis, value in zip("hw", pair, strict=True)
        }
        return result | {
            "images": self.images,
            "channels": self.channels,
            "height": self.out[0],
            "width": self.out[1],
            "in_height": self.size[0],
            "in_width": self.size[1],
        }

    def windows(self):
        """Output position, the input's slices that it sees, unclipped start."""
        for h in range(self.out[0]):
            for w in range(self.out[1]):
                start = (
                    h * self.stride[0] - self.pad[0],
                    w * self.stride[1] - self.pad[1],
                )
                inside = tuple(
                    slice(max(first, 0), min(first + k, n))
                    for first, k, n in zip(start, self.kernel, self.size, strict=True)
                )
                yield (h, w), (..., *inside), start

    def divisor(self, start, mode):
        """What an average divides by."""
        counts = 1
        if mode == 2:
            return counts
        for first, k, n, p in zip(start, self.kernel, self.size, self.pad, strict=True):
            if mode == 0:
                counts *= min(first + k, n + p) - first
            else:
                counts *= min(first + k, n) - max(first, 0)
        return counts


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
cases = st.builds(
    Case,
    images=st.integers(1, 2),
    channels=st.integers(1, 33),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=pairs,
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    full=st.booleans(),
).filter(lambda case: case.possible)


# Windows that lie side by side; the last ones may reach beyond the input.
beside = st.builds(
    lambda case: replace(case, stride=case.kernel, pad=(0, 0)), cases
).filter(lambda case: case.possible)


@fast
@given(
    case=st.one_of(cases, beside),
    epilogue=st.integers(0, 5),
    ties=st.booleans(),
    indexed=st.booleans(),
    halo=st.sampled_from([0, 2]),
)
@example(Case(1, 3, (4, 5), (2, 2), (2, 2), (0, 0), True), 0, False, True, 0)
@example(Case(1, 3, (5, 4), (2, 2), (2, 2), (0, 0), True), 0, False, True, 0)
@example(Case(1, 3, (5, 5), (2, 2), (2, 2), (0, 0), False), 0, False, True, 0)
def test_max_pool_and_backward(kernels: Kernels, case, epilogue, ties, indexed, halo):
    memory, random = Memory(), np.random.default_rng(sum(case.size))
    shape = (case.images, case.channels, *case.size)
    out_shape = (case.images, case.channels, *case.out)
    values = random.integers(0, 3, shape) - 1.0 if ties else random.normal(size=shape)
    x = memory.image(values, 1)
    y = memory.image(np.full(out_shape, np.nan), 1)
    stored = padded(case.channels)
    index = memory.array(
        np.full((case.images, *case.out, stored), 77, np.uint8), np.uint8
    )
    kernels(
        "max_pool",
        **x.fields("x"),
        **y.fields("y"),
        index=index if indexed else 0,
        **case.fields(),
        epilogue=epilogue,
    )

    largest = np.zeros(out_shape)
    first = np.zeros(out_shape, int)  # of the maximum, in the unclipped window
    for (h, w), inside, start in case.windows():
        window = x.nchw[inside]
        rows, columns = window.shape[-2:]
        flat = window.reshape(*window.shape[:2], -1)
        largest[..., h, w] = flat.max(-1)
        i, j = np.divmod(flat.argmax(-1), columns)
        assert rows
        i, j = i + max(0, -start[0]), j + max(0, -start[1])
        first[..., h, w] = i * case.kernel[1] + j
    np.testing.assert_allclose(y.nchw, activate(largest, epilogue), rtol=1e-6)
    y.check_padding()
    if not indexed:
        assert (index == 77).all()
        memory.check()
        return
    found = index[..., : case.channels].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(found, first)

    dy = memory.image(random.normal(size=out_shape))
    dx = memory.image(np.full(shape, np.nan), halo)
    kernels(
        "max_pool_backward",
        **dy.fields("dy"),
        index=index,
        **y.fields("y"),
        **dx.fields("dx"),
        **case.fields(),
        epilogue=epilogue,
    )
    factor = gradient(y.nchw, epilogue) if epilogue else 1.0
    upstream = dy.nchw * factor
    expected = np.zeros(shape)
    images, channels = np.indices(shape[:2])
    for (h, w), _, start in case.windows():
        i, j = np.divmod(first[..., h, w], case.kernel[1])
        place = (images, channels, i + start[0], j + start[1])
        np.add.at(expected, place, upstream[..., h, w])
    np.testing.assert_allclose(dx.nchw, expected, rtol=1e-5, atol=1e-5)
    dx.check_padding()
    memory.check()


@fast
@given(case=cases, mode=st.integers(0, 2))
def test_avg_pool_and_backward(kernels: Kernels, case, mode):
    memory, random = Memory(), np.random.default_rng(sum(case.size))
    shape = (case.images, case.channels, *case.size)
    out_shape = (case.images, case.channels, *case.out)
    x = memory.image(random.normal(size=shape), 1)
    y = memory.image(np.full(out_shape, np.nan), 1)
    dy = memory.image(random.normal(size=out_shape))
    dx = memory.image(np.full(shape, np.nan), 2)
    kernels(
        "avg_pool",
        **x.fields("x"),
        **y.fields("y"),
        **case.fields(),
        divisor_mode=mode,
    )
    kernels(
        "avg_pool_backward",
        **dy.fields("dy"),
        **dx.fields("dx"),
        **case.fields(),
        divisor_mode=mode,
    )
    expected, expected_dx = np.zeros(out_shape), np.zeros(shape)
    for (h, w), inside, start in case.windows():
        divisor = case.divisor(start, mode)
        expected[..., h, w] = x.nchw[inside].sum((-2, -1), dtype=np.float64) / divisor
        expected_dx[inside] += dy.nchw[..., h, w, None, None] / divisor
    np.testing.assert_allclose(y.nchw, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx.nchw, expected_dx, rtol=1e-5, atol=1e-6)
    y.check_padding()
    dx.check_padding()
    memory.check()
