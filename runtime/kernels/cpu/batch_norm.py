"""Batch normalization of image tensors, in passes that fuse with their neighbors.

Forward: sums (by `conv` or `batch_norm_statistics`), `finish` per channel, `apply`.
Backward: one pass for both sums, `finish` per channel, one pass for dx.
"""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.activation import activate, activation_gradient
from runtime.kernels.cpu.channel_sums import padded_channels
from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import (
    LANES,
    inlined,
)
from runtime.kernels.cpu.vector import (
    add_to_first_doubles,
    fma,
    get,
    get_double,
    keep_first,
    load_first,
    put,
    square_root,
    store_first,
    zeros,
)

_RUN = 32  # pixels that are summed in float32


@inlined
def _put_scale(
    c: int,
    average: float,
    variance: float,
    gamma: int,
    beta: int,
    fix_gamma: int,
    eps: float,
    mean: int,
    inverse: int,
    scale: int,
    shift: int,
) -> None:
    """Store what mean and variance make of x: (x - mean) * scale + shift.

    The mean is subtracted first: x * scale - mean * scale would lose the digits that a
    large mean takes.
    """
    factor = 1.0 / square_root(variance + eps)
    center = np.float32(average)
    put(mean, c, center)
    put(inverse, c, np.float32(factor))
    if fix_gamma == 0:
        factor *= float(get(gamma, c))
    offset = (float(center) - average) * factor
    if beta != 0:
        offset += float(get(beta, c))
    put(scale, c, np.float32(factor))
    put(shift, c, np.float32(offset))


@inlined
def _clear_end(address: int, channels: int) -> None:
    """Zero the padding channels of a vector of one number per channel."""
    for c in range(channels, padded_channels(channels)):
        put(address, c, np.float32(0))


@kernel
def batch_norm_finish(
    statistics: int,
    pivot: int,
    gamma: int,
    beta: int,
    fix_gamma: int,
    eps: float,
    momentum: float,
    count: int,
    channels: int,
    mean: int,
    inverse: int,
    scale: int,
    shift: int,
    moving_mean: int,
    moving_variance: int,
    next_mean: int,
    next_variance: int,
) -> None:
    """A batch's sums over `count` pixels to mean, biased variance and what follows.

    With `fix_gamma` gamma reads as 1 and may be 0. The moving statistics' next
    values are written unless their addresses are 0.
    """
    stored = padded_channels(channels)
    for c in range(channels):
        distance = get_double(statistics, c) / count
        average = distance
        if pivot != 0:
            average += float(get(pivot, c))
        variance = get_double(statistics, stored + c) / count - distance * distance
        if variance < 0.0:
            variance = 0.0
        # fmt: off
        _put_scale(c, average, variance, gamma, beta, fix_gamma, eps,
                   mean, inverse, scale, shift)
        # fmt: on
        if next_mean != 0:
            old = momentum * float(get(moving_mean, c))
            put(next_mean, c, np.float32(old + (1.0 - momentum) * average))
        if next_variance != 0:
            old = momentum * float(get(moving_variance, c))
            put(next_variance, c, np.float32(old + (1.0 - momentum) * variance))
    _clear_end(mean, channels)
    _clear_end(inverse, channels)
    _clear_end(scale, channels)
    _clear_end(shift, channels)


@kernel
def batch_norm_scale(
    gamma: int,
    beta: int,
    fix_gamma: int,
    eps: float,
    moving_mean: int,
    moving_variance: int,
    channels: int,
    mean: int,
    inverse: int,
    scale: int,
    shift: int,
) -> None:
    """The same from the moving statistics, for prediction."""
    for c in range(channels):
        average = float(get(moving_mean, c))
        variance = float(get(moving_variance, c))
        # fmt: off
        _put_scale(c, average, variance, gamma, beta, fix_gamma, eps,
                   mean, inverse, scale, shift)
        # fmt: on
    _clear_end(mean, channels)
    _clear_end(inverse, channels)
    _clear_end(scale, channels)
    _clear_end(shift, channels)


@kernel
def batch_norm_fold(
    bias: int,
    gamma: int,
    beta: int,
    fix_gamma: int,
    eps: float,
    moving_mean: int,
    moving_variance: int,
    channels: int,
    scale: int,
    shift: int,
) -> None:
    """What makes a convolution normalize its result: x * scale + shift.

    `scale` belongs into its weight, `shift` is its new bias; `bias` is the old one.
    The sums of a convolution have the mean's magnitude in any case, so that nothing is
    lost by subtracting it there.
    """
    for c in range(channels):
        factor = 1.0 / square_root(float(get(moving_variance, c)) + eps)
        if fix_gamma == 0:
            factor *= float(get(gamma, c))
        distance = -float(get(moving_mean, c))
        if bias != 0:
            distance += float(get(bias, c))
        offset = distance * factor
        if beta != 0:
            offset += float(get(beta, c))
        put(scale, c, np.float32(factor))
        put(shift, c, np.float32(offset))


@kernel
def batch_norm_apply(
    x: int,
    x_image: int,
    x_row: int,
    x_pixel: int,
    residual: int,
    residual_image: int,
    residual_row: int,
    residual_pixel: int,
    y: int,
    y_image: int,
    y_row: int,
    y_pixel: int,
    images: int,
    height: int,
    width: int,
    channels: int,
    mean: int,
    scale: int,
    shift: int,
    epilogue: int,
) -> None:
    """y = activation((x - mean) * scale + shift (+ residual))."""
    stored = padded_channels(channels)
    for image in range(images):
        for h in range(height):
            a = x + 4 * (image * x_image + h * x_row)
            b = y + 4 * (image * y_image + h * y_row)
            r = residual + 4 * (image * residual_image + h * residual_row)
            for p in range(width):
                for c in range(0, stored, LANES):
                    count = stored - c
                    center = load_first(mean, c, count)
                    value = fma(
                        load_first(a, p * x_pixel + c, count) - center,
                        load_first(scale, c, count),
                        load_first(shift, c, count),
                    )
                    if residual != 0:
                        value = value + load_first(r, p * residual_pixel + c, count)
                    value = activate(value, epilogue)
                    if channels - c < LANES:
                        value = keep_first(value, channels - c)
                    store_first(b, p * y_pixel + c, value, count)


@kernel
def batch_norm_backward_sums(
    dy: int,
    dy_image: int,
    dy_row: int,
    dy_pixel: int,
    y: int,
    y_image: int,
    y_row: int,
    y_pixel: int,
    x: int,
    x_image: int,
    x_row: int,
    x_pixel: int,
    masked: int,
    masked_image: int,
    masked_row: int,
    masked_pixel: int,
    images: int,
    height: int,
    width: int,
    channels: int,
    mean: int,
    sums: int,
    epilogue: int,
) -> None:
    """Add the sums of g and of g * (x - mean) to `sums`, float64[2 * padded channels].

    g = dy, times the activation's gradient at its output y if there is an epilogue;
    it is stored in `masked` unless that is 0 (it may be dy).
    """
    stored = padded_channels(channels)
    products = sums + 8 * stored
    for image in range(images):
        for h in range(height):
            a = dy + 4 * (image * dy_image + h * dy_row)
            b = y + 4 * (image * y_image + h * y_row)
            d = x + 4 * (image * x_image + h * x_row)
            e = masked + 4 * (image * masked_image + h * masked_row)
            for c in range(0, stored, LANES):
                count = stored - c
                center = load_first(mean, c, count)
                for start in range(0, width, _RUN):
                    total = zeros()
                    product = zeros()
                    for p in range(start, min(start + _RUN, width)):
                        g = load_first(a, p * dy_pixel + c, count)
                        if epilogue != 0:
                            output = load_first(b, p * y_pixel + c, count)
                            g = g * activation_gradient(output, epilogue)
                        if masked != 0:
                            store_first(e, p * masked_pixel + c, g, count)
                        distance = load_first(d, p * x_pixel + c, count) - center
                        total = total + g
                        product = fma(g, distance, product)
                    add_to_first_doubles(sums, c, total, count)
                    add_to_first_doubles(products, c, product, count)


@kernel
def batch_norm_backward_finish(
    sums: int,
    inverse: int,
    gamma: int,
    fix_gamma: int,
    count: int,
    channels: int,
    gamma_gradient: int,
    beta_gradient: int,
    k1: int,
    k2: int,
    k3: int,
    accumulate: int,
) -> None:
    """Gradients of gamma and beta (unless 0); dx = g * k1 + (x - mean) * k2 + k3."""
    stored = padded_channels(channels)
    for c in range(channels):
        total = get_double(sums, c)
        product = get_double(sums, stored + c)
        factor = float(get(inverse, c))
        dgamma = product * factor
        a = factor
        if fix_gamma != 0:
            dgamma = 0.0
        else:
            a = factor * float(get(gamma, c))
        b = -a * factor * factor * product / count
        put(k1, c, np.float32(a))
        put(k2, c, np.float32(b))
        put(k3, c, np.float32(-a * total / count))
        if gamma_gradient != 0:
            if accumulate != 0:
                dgamma += float(get(gamma_gradient, c))
            put(gamma_gradient, c, np.float32(dgamma))
        if beta_gradient != 0:
            if accumulate != 0:
                total += float(get(beta_gradient, c))
            put(beta_gradient, c, np.float32(total))
    _clear_end(k1, channels)
    _clear_end(k2, channels)
    _clear_end(k3, channels)


@kernel
def batch_norm_backward_apply(
    x: int,
    x_image: int,
    x_row: int,
    x_pixel: int,
    g: int,
    g_image: int,
    g_row: int,
    g_pixel: int,
    dx: int,
    dx_image: int,
    dx_row: int,
    dx_pixel: int,
    images: int,
    height: int,
    width: int,
    channels: int,
    mean: int,
    k1: int,
    k2: int,
    k3: int,
    accumulate: int,
) -> None:
    """dx = g * k1 + (x - mean) * k2 + k3 (+ dx)."""
    stored = padded_channels(channels)
    for image in range(images):
        for h in range(height):
            a = x + 4 * (image * x_image + h * x_row)
            b = g + 4 * (image * g_image + h * g_row)
            d = dx + 4 * (image * dx_image + h * dx_row)
            for p in range(width):
                for c in range(0, stored, LANES):
                    count = stored - c
                    center = load_first(mean, c, count)
                    value = fma(
                        load_first(a, p * x_pixel + c, count) - center,
                        load_first(k2, c, count),
                        load_first(k3, c, count),
                    )
                    value = fma(
                        load_first(b, p * g_pixel + c, count),
                        load_first(k1, c, count),
                        value,
                    )
                    if accumulate != 0:
                        value = value + load_first(d, p * dx_pixel + c, count)
                    store_first(d, p * dx_pixel + c, value, count)
