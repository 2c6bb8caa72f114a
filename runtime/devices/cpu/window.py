"""Where the taps of a convolution's window lie, one dimension at a time."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.kernels.cpu.table import panel_width

# A tile of all images' pixels should have as many rows as one of a row of pixels.
_MANY_IMAGES = 16
_MOST_USEFUL = 0.9


@dataclass(frozen=True, slots=True)
class Reach:
    """Which inputs the taps of every output reach.

    Attributes:
        positions: How many outputs.
        size: How many inputs.
        taps: How many taps.
        first: Input of the first tap of the first output; may be in the halo.
        stride, dilate: Inputs from one output, from one tap to the next.
    """

    positions: int
    size: int
    taps: int
    first: int
    stride: int = 1
    dilate: int = 1

    @property
    def halo(self) -> int:
        """How far the taps go beyond the input on either side."""
        last = self.first + self.stride * (self.positions - 1)
        last += self.dilate * (self.taps - 1)
        return max(0, -self.first, last - (self.size - 1))

    @property
    def inside(self) -> list[int]:
        """How many taps of each output are inside the input."""
        starts = (self.first + self.stride * i for i in range(self.positions))
        return [
            sum(0 <= start + self.dilate * tap < self.size for tap in range(self.taps))
            for start in starts
        ]


def window(rows: Reach, columns: Reach) -> dict[str, int]:
    """`steps`, and the size of the input."""
    sizes = {"in_height": rows.size, "in_width": columns.size}
    return steps(rows, columns) | sizes


def steps(rows: Reach, columns: Reach) -> dict[str, int]:
    """The fields by which the kernels take a window."""
    return {
        "height": rows.positions,
        "width": columns.positions,
        "stride_h": rows.stride,
        "stride_w": columns.stride,
        "dilate_h": rows.dilate,
        "dilate_w": columns.dilate,
        "pad_h": -rows.first,
        "pad_w": -columns.first,
        "kernel_h": rows.taps,
        "kernel_w": columns.taps,
    }


def by_pixel(images: int, channels: int, rows: Reach, columns: Reach) -> bool:
    """Whether `conv` shall compute all images' pixels of one position together.

    That leaves out every tap in the halo, but goes through all images at once; it
    pays where many taps are there.
    """
    useful = 1.0
    for dimension in (rows, columns):
        inside = dimension.inside
        if not all(inside):
            return False
        useful *= sum(inside) / (dimension.positions * dimension.taps)
    several_vectors = channels > panel_width() // 2
    return useful < _MOST_USEFUL and images >= _MANY_IMAGES and several_vectors


@dataclass(frozen=True, slots=True)
class Class:
    """The positions of the data gradient that are equal modulo the stride.

    Attributes:
        first: First such position.
        start, step: The kernel's taps that reach them, in the order in which they
            are read.
        reach: The inputs (of the output's gradient) that they read; without taps
            these positions get no gradient.
    """

    first: int
    start: int
    step: int
    reach: Reach

    @property
    def taps(self) -> tuple[int, int, int]:
        """Start, step and number of the taps, as `conv_pack` takes them."""
        return self.start, self.step, self.reach.taps


def classes(forward: Reach) -> list[Class]:
    """The classes of positions modulo the stride; it or the dilation must be 1."""
    stride, dilate, pad = forward.stride, forward.dilate, -forward.first
    found = []
    for first in range(min(stride, forward.size)):
        tap = (first + pad) % stride
        taps = len(range(tap, forward.taps, stride))
        positions = len(range(first, forward.size, stride))
        shift = (first + pad - tap) // stride
        read = shift - dilate * (taps - 1)
        reach = Reach(positions, forward.positions, taps, read, dilate=dilate)
        found.append(Class(first, tap + stride * (taps - 1), -stride, reach))
    return found
