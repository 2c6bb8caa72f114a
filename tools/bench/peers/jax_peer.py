"""JAX on the CPU: one jitted step, channels last, buffers donated.

Variants: `default` leaves the placement of its threads to the system; `pinned` keeps
the whole process, one thread computing, on one core.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from measurement import Clock, Options, read_options, report
from workloads import (
    BLOCKS_PER_GROUP,
    GROUPS,
    HIDDEN,
    LEARNING_RATE,
    MOMENTUM,
    RECURRENT_LAYERS,
    RECURRENT_WIDTH,
    SEPARABLE,
    STEM,
    WORKLOADS,
    Workload,
)

Array = jax.Array
Network = tuple[Any, Callable[[Any, Array], Array]]
random = np.random.default_rng(0)


def weight(*shape: int) -> Array:
    return jnp.asarray(random.standard_normal(shape, np.float32) * 0.05)


def dense(width: int, hidden: int) -> tuple[Array, Array]:
    return weight(width, hidden), jnp.zeros(hidden)


def convolve(x: Array, w: Array, stride: int = 1, padding: str = "SAME") -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    groups = x.shape[-1] // w.shape[2]
    return lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        padding,
        dimension_numbers=layout,
        feature_group_count=groups,
    )


def max_pool(x: Array) -> Array:
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def mlp(workload: Workload) -> Network:
    widths = (*workload.shape, *HIDDEN[workload.network], workload.classes)
    parameters = [dense(*pair) for pair in pairwise(widths)]

    def forward(parameters: Any, x: Array) -> Array:
        *hidden, last = parameters
        for w, b in hidden:
            x = jax.nn.relu(x @ w + b)
        return x @ last[0] + last[1]

    return parameters, forward


def lenet(workload: Workload) -> Network:
    parameters = [
        (weight(5, 5, 1, 20), jnp.zeros(20)),
        (weight(5, 5, 20, 50), jnp.zeros(50)),
        dense(800, 500),
        dense(500, workload.classes),
    ]

    def forward(parameters: Any, x: Array) -> Array:
        *convolutions, hidden, last = parameters
        for w, b in convolutions:
            x = max_pool(jnp.tanh(convolve(x, w, padding="VALID") + b))
        x = jnp.tanh(x.reshape(x.shape[0], -1) @ hidden[0] + hidden[1])
        return x @ last[0] + last[1]

    return parameters, forward


def convolution(channels: int, filters: int, kernel: int) -> tuple[Array, ...]:
    """Weight, and scale and shift of the normalization that follows."""
    shape = (kernel, kernel, channels, filters)
    return weight(*shape), jnp.ones(filters), jnp.zeros(filters)


def normalized(x: Array, parameters: Any, stride: int) -> Array:
    w, gamma, beta = parameters
    x = convolve(x, w, stride)
    mean = x.mean((0, 1, 2))
    variance = ((x - mean) ** 2).mean((0, 1, 2))
    return (x - mean) * (gamma * lax.rsqrt(variance + 1e-5)) + beta


def resnet20(workload: Workload) -> Network:
    stem = convolution(3, 16, 3)
    blocks: list[dict[str, Any]] = []
    strides = []
    channels = 16
    for filters, first_stride in GROUPS:
        for block in range(BLOCKS_PER_GROUP):
            layers = {
                "first": convolution(channels, filters, 3),
                "second": convolution(filters, filters, 3),
            }
            if channels != filters:
                layers["shortcut"] = convolution(channels, filters, 1)
            blocks.append(layers)
            strides.append(first_stride if block == 0 else 1)
            channels = filters
    parameters = stem, blocks, dense(channels, workload.classes)

    def forward(parameters: Any, x: Array) -> Array:
        stem, blocks, last = parameters
        x = jax.nn.relu(normalized(x, stem, 1))
        for layers, stride in zip(blocks, strides, strict=True):
            y = jax.nn.relu(normalized(x, layers["first"], stride))
            y = normalized(y, layers["second"], 1)
            if "shortcut" in layers:
                x = normalized(x, layers["shortcut"], stride)
            x = jax.nn.relu(y + x)
        return x.mean((1, 2)) @ last[0] + last[1]

    return parameters, forward


def mobilenet(workload: Workload) -> Network:
    stem = convolution(3, STEM, 3)
    blocks = []
    channels = STEM
    for filters, _ in SEPARABLE:
        # Of each group one channel goes in: as many groups as channels.
        blocks.append((convolution(1, channels, 3), convolution(channels, filters, 1)))
        channels = filters
    parameters = stem, blocks, dense(channels, workload.classes)

    def forward(parameters: Any, x: Array) -> Array:
        stem, blocks, last = parameters
        x = jax.nn.relu(normalized(x, stem, 1))
        for (depthwise, pointwise), (_, stride) in zip(blocks, SEPARABLE, strict=True):
            x = jax.nn.relu(normalized(x, depthwise, stride))
            x = jax.nn.relu(normalized(x, pointwise, 1))
        return x.mean((1, 2)) @ last[0] + last[1]

    return parameters, forward


def language_model(workload: Workload) -> Network:
    width = RECURRENT_WIDTH
    layers = [
        (*dense(width, 4 * width), weight(width, 4 * width))
        for _ in range(RECURRENT_LAYERS)
    ]
    table = weight(workload.classes, width)
    parameters = table, layers, dense(width, workload.classes)

    def forward(parameters: Any, x: Array) -> Array:
        table, layers, last = parameters
        x = table[x]
        for layer in layers:
            x = long_short_term_memory(x, *layer)
        return x.reshape(-1, width) @ last[0] + last[1]

    return parameters, forward


def long_short_term_memory(x: Array, w: Array, b: Array, recurrent: Array) -> Array:
    def step(states: tuple[Array, Array], projected: Array) -> Any:
        hidden, memory = states
        gates = jnp.split(projected + hidden @ recurrent, 4, axis=1)
        take, keep, new, give = (
            jnp.tanh(gate) if i == 2 else jax.nn.sigmoid(gate)
            for i, gate in enumerate(gates)
        )
        memory = keep * memory + take * new
        hidden = give * jnp.tanh(memory)
        return (hidden, memory), hidden

    nothing = jnp.zeros((x.shape[1], len(recurrent)))
    return lax.scan(step, (nothing, nothing), x @ w + b)[1]


def configure(options: Options) -> None:
    """Bound the threads of XLA, which looks here when its first array is made."""
    jax.config.update("jax_platforms", "cpu")
    os.environ["NPROC"] = str(options.threads)
    if options.threads == 1:
        os.environ["XLA_FLAGS"] = (
            "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        )
    if options.variant == "pinned":
        os.sched_setaffinity(0, {0})


def main(options: Options) -> None:
    configure(options)
    workload = WORKLOADS[options.workload]
    build = {
        "mlp": mlp,
        "tiny": mlp,
        "lenet": lenet,
        "resnet20": resnet20,
        "language_model": language_model,
        "mobilenet": mobilenet,
    }
    parameters, forward = build[workload.network](workload)
    label = jnp.asarray(random.integers(0, workload.classes, workload.label_shape))
    label = label.ravel()
    if workload.is_sequence:
        data = jnp.asarray(random.integers(0, workload.classes, workload.data_shape))
    else:  # channels last
        shape = (workload.batch, *workload.shape[1:], workload.shape[0])
        data = jnp.asarray(random.standard_normal(shape, np.float32))

    def loss(parameters: Any, x: Array, y: Array) -> Array:
        logits = jax.nn.log_softmax(forward(parameters, x))
        return -jnp.take_along_axis(logits, y[:, None], 1).mean()

    def update(parameters: Any, momenta: Any, x: Array, y: Array) -> Any:
        value, gradients = jax.value_and_grad(loss)(parameters, x, y)
        momenta = jax.tree.map(lambda m, g: MOMENTUM * m + g, momenta, gradients)
        parameters = jax.tree.map(
            lambda p, m: p - LEARNING_RATE * m, parameters, momenta
        )
        return parameters, momenta, value

    train = jax.jit(update, donate_argnums=(0, 1))
    predict = jax.jit(forward)
    momenta = jax.tree.map(jnp.zeros_like, parameters)
    clock = Clock(options.seconds)
    for steps in clock:
        for _ in range(steps):
            if options.training:
                parameters, momenta, last = train(parameters, momenta, data, label)
            else:
                last = predict(parameters, data)
        jax.block_until_ready(last)
    report("jax", jax.__version__, options, clock)


if __name__ == "__main__":
    main(read_options())
