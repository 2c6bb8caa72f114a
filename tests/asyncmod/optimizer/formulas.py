"""MXNet's optimizers spelled out in float64, for one parameter from its beginning.

Each formula takes the weight, the gradients of all updates, and the settings: lr, wd,
c(g) = clip(rescale * g), d(w, g) = clip(rescale * g + wd * w), and the optimizer's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Formula = Callable[[Array, Sequence[Array], Any], Array]
sqrt, sign = np.sqrt, np.sign


def settings(
    lr: float = 0.1,
    wd: float = 0.0,
    rescale_grad: float = 1.0,
    clip_gradient: float | None = None,
    **own: Any,
) -> Any:
    """What a formula is told."""

    def clip(values: Array) -> Array:
        bound = clip_gradient or np.inf
        return np.minimum(np.maximum(values, -bound), bound)

    return SimpleNamespace(
        lr=lr,
        wd=wd,
        rescale=rescale_grad,
        c=lambda g: clip(rescale_grad * g),
        d=lambda w, g: clip(rescale_grad * g + wd * w),
        **own,
    )


def sgd(w: Array, grads: Sequence[Array], s: Any) -> Array:
    mom = 0 * w
    for g in grads:
        mom = s.momentum * mom - s.lr * s.wd * w - s.lr * s.c(g)
        w = w + mom
    return w


def nag(w: Array, grads: Sequence[Array], s: Any) -> Array:
    mom = 0 * w
    for g in grads:
        if s.momentum == 0:
            w = (1 - s.lr * s.wd) * w - s.lr * s.c(g)
            continue
        m = s.momentum * mom
        w = w - m + (1 + s.momentum) * (m - s.lr * (s.c(g) + s.wd * w))
        mom = m - s.lr * (s.c(g) + s.wd * w)
    return w


def signum(w: Array, grads: Sequence[Array], s: Any) -> Array:
    mom = 0 * w
    for g in grads:
        if s.momentum == 0:
            w = (1 - s.lr * s.wd) * w - s.lr * sign(g)
            continue
        mom = s.momentum * mom - (1 - s.momentum) * (s.c(g) + s.wd * w)
        w = (1 - s.lr * s.wd_lh) * w + s.lr * sign(mom)
    return w


def dcasgd(w: Array, grads: Sequence[Array], s: Any) -> Array:
    mom, previous = 0 * w, w
    for g in grads:
        G = s.c(g)
        delay = s.lamda * G**2 * (w - previous)
        mom = s.momentum * mom - s.lr * (G + s.wd * w + delay)
        previous = w
        w = w + mom
    return w


def adam(w: Array, grads: Sequence[Array], s: Any) -> Array:
    m, v = 0 * w, 0 * w
    for t, g in enumerate(grads, 1):
        g = s.d(w, g)
        m = s.beta1 * m + (1 - s.beta1) * g
        v = s.beta2 * v + (1 - s.beta2) * g**2
        lr = s.lr * sqrt(1 - s.beta2**t) / (1 - s.beta1**t)
        w = w - lr * m / (sqrt(v) + s.epsilon)
    return w


def adamax(w: Array, grads: Sequence[Array], s: Any) -> Array:
    m, u = 0 * w, 0 * w
    for t, g in enumerate(grads, 1):
        g = s.d(w, g)
        m = s.beta1 * m + (1 - s.beta1) * g
        u = np.maximum(s.beta2 * u, abs(g))
        w = w - s.lr / (1 - s.beta1**t) * m / u
    return w


def nadam(w: Array, grads: Sequence[Array], s: Any) -> Array:
    m, v, product = 0 * w, 0 * w, 1.0
    for t, g in enumerate(grads, 1):
        g = s.d(w, g)
        now = s.beta1 * (1 - 0.5 * 0.96 ** (t * s.schedule_decay))
        then = s.beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * s.schedule_decay))
        product *= now
        m = s.beta1 * m + (1 - s.beta1) * g
        v = s.beta2 * v + (1 - s.beta2) * g**2
        ahead = (1 - now) * g / (1 - product) + then * m / (1 - product * then)
        w = w - s.lr * ahead / (sqrt(v / (1 - s.beta2**t)) + s.epsilon)
    return w


def ftml(w: Array, grads: Sequence[Array], s: Any) -> Array:
    d, v, z = 0 * w, 0 * w, 0 * w
    for t, g in enumerate(grads, 1):
        g = s.d(w, g)
        v = s.beta2 * v + (1 - s.beta2) * g**2
        new = (1 - s.beta1**t) / s.lr * (sqrt(v / (1 - s.beta2**t)) + s.epsilon)
        z = s.beta1 * z + (1 - s.beta1) * g - (new - s.beta1 * d) * w
        d = new
        w = -z / d
    return w


def adagrad(w: Array, grads: Sequence[Array], s: Any) -> Array:
    h = 0 * w
    for g in grads:
        h = h + s.c(g) ** 2
        w = w - s.lr * (s.c(g) / sqrt(h + s.eps) + s.wd * w)
    return w


def groupadagrad(w: Array, grads: Sequence[Array], s: Any) -> Array:
    h = np.zeros(len(w))
    for g in grads:
        h = h + np.array([np.mean(row**2) for row in s.c(g)])
        w = w - s.lr * s.c(g) / sqrt(h + s.eps)[:, None]
    return w


def adadelta(w: Array, grads: Sequence[Array], s: Any) -> Array:
    a, d = 0 * w, 0 * w
    for g in grads:
        a = s.rho * a + (1 - s.rho) * s.c(g) ** 2
        step = sqrt(d + s.epsilon) / sqrt(a + s.epsilon) * s.c(g)
        d = s.rho * d + (1 - s.rho) * step**2
        w = w - (step + s.wd * w)
    return w


def rmsprop(w: Array, grads: Sequence[Array], s: Any) -> Array:
    n, mean, step = 0 * w, 0 * w, 0 * w
    for g in grads:
        g = s.d(w, g)
        n = s.gamma1 * n + (1 - s.gamma1) * g**2
        if s.centered:
            mean = s.gamma1 * mean + (1 - s.gamma1) * g
            step = s.gamma2 * step - s.lr * g / sqrt(n - mean**2 + s.epsilon)
        else:
            step = -s.lr * g / sqrt(n + s.epsilon)
        w = w + step
        if s.clip_weights:
            w = np.clip(w, -s.clip_weights, s.clip_weights)
    return w


def ftrl(w: Array, grads: Sequence[Array], s: Any) -> Array:
    z, n = 0 * w, 0 * w
    for g in grads:
        G = s.c(g)
        z = z + G - (sqrt(n + G**2) - sqrt(n)) * w / s.lr
        n = n + G**2
        dense = (sign(z) * s.lamda1 - z) / ((s.beta + sqrt(n)) / s.lr + s.wd)
        w = np.where(abs(z) > s.lamda1, dense, 0)
    return w


def lamb(w: Array, grads: Sequence[Array], s: Any) -> Array:
    m, v = 0 * w, 0 * w
    for t, g in enumerate(grads, 1):
        m = s.beta1 * m + (1 - s.beta1) * s.c(g)
        v = s.beta2 * v + (1 - s.beta2) * s.c(g) ** 2
        once, twice = (
            (m / (1 - s.beta1**t), v / (1 - s.beta2**t))
            if s.bias_correction
            else (m, v)
        )
        u = once / (sqrt(twice) + s.epsilon) + s.wd * w
        r1 = float(np.linalg.norm(w))
        r1 = max(r1, s.lower_bound or 0)
        r1 = min(r1, s.upper_bound or np.inf)
        r2 = np.linalg.norm(u)
        w = w - s.lr * (r1 / r2 if r1 and r2 else 1) * u
    return w


def lars(w: Array, grads: Sequence[Array], s: Any) -> Array:
    mom = 0 * w
    for g in grads:
        w_norm, g_norm = np.linalg.norm(w), np.linalg.norm(s.rescale * g)
        lr = s.lr
        if w_norm > 0 and g_norm > 0:
            lr *= s.eta * w_norm / (g_norm + s.wd * w_norm + s.eps)
        mom = s.momentum * mom - lr * (s.c(g) + s.wd * w)
        w = w + mom
    return w


def lbsgd(w: Array, grads: Sequence[Array], s: Any) -> Array:
    mom, total = 0 * w, 0 * w
    begin, warmup = (
        s.begin_epoch * s.updates_per_epoch,
        s.warmup_epochs * s.updates_per_epoch,
    )
    for n, g in enumerate(grads, begin + 1):
        total = total + g
        if n % s.batch_scale:
            continue
        mean, total = total / s.batch_scale, 0 * w
        share = min(n / warmup, 1)
        if s.warmup_strategy == "lars":
            ww, gg = (w**2).sum(), (mean**2).sum()
            multiplier = min(max(sqrt(ww / (gg + s.wd * ww)), 0.01), 100)
        else:
            power = {"linear": 1, "power2": 2, "sqrt": 0.5}[s.warmup_strategy]
            multiplier = 1 + (s.batch_scale - 1) * share**power
        mom = s.momentum * mom - s.lr * multiplier * (s.c(mean) + s.wd * w)
        w = w + mom
    return w


def sgld_without_noise(w: Array, grads: Sequence[Array], s: Any) -> Array:
    for g in grads:
        w = w - s.lr / 2 * (s.c(g) + s.wd * w)
    return w
