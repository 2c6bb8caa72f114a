"""Sums over pixels, channel by channel.

Runs of pixels are summed in float32 and the runs' sums in float64.
"""

from __future__ import annotations

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import (
    LANES,
    inlined,
)
from runtime.kernels.cpu.table import CHANNEL_BLOCK
from runtime.kernels.cpu.vector import (
    add_to_first_doubles,
    fma,
    load_first,
    store_first,
    zeros,
)

_RUN = 32


@inlined
def padded_channels(channels: int) -> int:
    """Channels that an image tensor stores."""
    return (channels + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK * CHANNEL_BLOCK


@inlined
def add_moments(
    y: int,
    y_row: int,
    y_pixel: int,
    height: int,
    width: int,
    first: int,
    end: int,
    channels: int,
    pivot: int,
    statistics: int,
) -> None:
    """Add an image's sums of y - pivot and of its square.

    For the channels from `first` to `end` (stored ones; those above `channels` hold
    zero). `statistics` is float64[2 * padded channels]; `pivot` may be 0.
    """
    squares = statistics + 8 * padded_channels(channels)
    for c in range(first, end, LANES):
        count = end - c
        center = zeros()
        if pivot != 0:
            center = load_first(pivot, c, channels - c)
        total = zeros()
        square = zeros()
        pixels = 0
        for h in range(height):
            for start in range(0, width, _RUN):
                stop = min(start + _RUN, width)
                for p in range(start, stop):
                    value = load_first(y, h * y_row + p * y_pixel + c, count) - center
                    total = total + value
                    square = fma(value, value, square)
                pixels += stop - start
                if pixels >= _RUN or h == height - 1:
                    add_to_first_doubles(statistics, c, total, count)
                    add_to_first_doubles(squares, c, square, count)
                    total = zeros()
                    square = zeros()
                    pixels = 0


@kernel
def batch_norm_statistics(
    x: int,
    x_image: int,
    x_row: int,
    x_pixel: int,
    images: int,
    height: int,
    width: int,
    channels: int,
    pivot: int,
    statistics: int,
) -> None:
    """Add a batch's sums of x - pivot and of its square to `statistics`."""
    stored = padded_channels(channels)
    for image in range(images):
        # fmt: off
        add_moments(x + 4 * image * x_image, x_row, x_pixel, height, width,
                    0, stored, channels, pivot, statistics)
        # fmt: on


@kernel
def image_sums(
    x: int,
    x_image: int,
    x_row: int,
    x_pixel: int,
    images: int,
    height: int,
    width: int,
    channels: int,
    sums: int,
    accumulate: int,
) -> None:
    """Sums over all pixels of all images (+ what `sums` holds)."""
    for image in range(images):
        for c in range(0, channels, LANES):
            count = channels - c
            plane = zeros()
            for h in range(height):
                row = x + 4 * (image * x_image + h * x_row + c)
                line = zeros()
                for p in range(width):
                    line = line + load_first(row, p * x_pixel, count)
                plane = plane + line
            if image > 0 or accumulate != 0:
                plane = plane + load_first(sums, c, count)
            store_first(sums, c, plane, count)
