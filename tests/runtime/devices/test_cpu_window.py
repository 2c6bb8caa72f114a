"""Which inputs the taps of a convolution reach, and the data gradient's classes."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from runtime.devices.cpu.window import Reach, by_pixel, classes
from runtime.kernels.cpu.table import panel_width

CHANNELS = panel_width()


def forward(size: int, kernel: int, stride: int, dilate: int, pad: int) -> Reach:
    positions = (size + 2 * pad - dilate * (kernel - 1) - 1) // stride + 1
    return Reach(positions, size, kernel, -pad, stride, dilate)


reaches = st.builds(
    forward,
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 5),
).filter(lambda reach: reach.positions > 0)


def inputs(reach: Reach) -> list[list[int]]:
    """The input of each tap, for every output."""
    return [
        [reach.first + o * reach.stride + t * reach.dilate for t in range(reach.taps)]
        for o in range(reach.positions)
    ]


@given(reaches)
def test_halo_and_taps_inside(reach: Reach) -> None:
    read = [i for taps in inputs(reach) for i in taps]
    assert reach.halo == max(0, -min(read), max(read) - reach.size + 1)
    inside = [sum(0 <= i < reach.size for i in taps) for taps in inputs(reach)]
    assert reach.inside == inside


@given(reaches)
def test_classes_join_what_the_forward_pass_joined(reach: Reach) -> None:
    assume(reach.stride == 1 or reach.dilate == 1)
    joined = {
        (o, t, i)
        for o, taps in enumerate(inputs(reach))
        for t, i in enumerate(taps)
        if 0 <= i < reach.size
    }
    found = set()
    for c in classes(reach):
        assert c.reach.size == reach.positions
        for position, outputs in enumerate(inputs(c.reach)):
            i = c.first + reach.stride * position
            taps = range(c.start, c.start + c.step * c.reach.taps, c.step)
            found |= {(o, t, i) for o, t in zip(outputs, taps, strict=True)}
    assert {(o, t, i) for o, t, i in found if 0 <= o < reach.positions} == joined


def test_by_pixel_where_many_taps_are_in_the_halo() -> None:
    padded, wide, bare = (forward(n, 3, 1, 1, p) for n, p in ((8, 1), (32, 1), (8, 0)))
    assert by_pixel(64, CHANNELS, padded, padded)
    assert not by_pixel(64, CHANNELS, wide, wide)
    assert not by_pixel(64, CHANNELS, bare, bare)
    assert not by_pixel(2, CHANNELS, padded, padded)
    assert not by_pixel(64, CHANNELS // 2, padded, padded)


def test_not_by_pixel_where_an_output_has_no_tap_inside() -> None:
    assert not by_pixel(64, CHANNELS, forward(4, 1, 1, 1, 1), forward(4, 3, 1, 1, 1))
