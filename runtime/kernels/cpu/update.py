"""Sum of gradients and parameter update in one pass."""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.vector import (
    LANES,
    get_double,
    get_integer,
    load_first,
    splat,
    store_first,
    where_less,
    zeros,
)


@kernel
def sgd(
    weight: int,
    momentum_state: int,
    gradients: int,
    devices: int,
    begin: int,
    end: int,
    hyper: int,
) -> None:
    """MXNet's SGD on elements begin..end of flat buffers.

    G = clip(rescale * (sum of the devices' gradients, in order)). Without state
    w = (1 - lr * wd) * w - lr * G; with it mom = mu * mom - lr * (G + wd * w) and
    w += mom. An element's result does not depend on the bounds.
    """
    rate = get_double(hyper, 0)
    decay = get_double(hyper, 1)
    rescale = splat(np.float32(get_double(hyper, 2)))
    clip = np.float32(get_double(hyper, 3))
    high = splat(clip)
    low = splat(-clip)
    momentum = splat(np.float32(get_double(hyper, 4)))
    lr = splat(np.float32(rate))
    wd = splat(np.float32(decay))
    keep = splat(np.float32(1.0 - rate * decay))
    for i in range(begin, end, LANES):
        count = end - i
        g = zeros()
        for device in range(devices):
            part = load_first(get_integer(gradients, device), i, count)
            g = part if device == 0 else g + part
        g = g * rescale
        if clip >= np.float32(0):
            g = where_less(g, low, low, g)
            g = where_less(high, g, high, g)
        w = load_first(weight, i, count)
        if momentum_state == 0:
            w = w * keep - lr * g
        else:
            change = load_first(momentum_state, i, count) * momentum
            change = change - lr * (g + wd * w)
            store_first(momentum_state, i, change, count)
            w = w + change
        store_first(weight, i, w, count)
