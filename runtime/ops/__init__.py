"""Operators: NumPy definitions, shape rules and gradient rules, one file per family.

Importing this package fills the table of `runtime.graph.registry`.
"""

from runtime.ops import (
    activation,
    arithmetic,
    batch_norm,
    concat,
    convolution,
    dense,
    dropout,
    elementwise,
    fill,
    identity,
    loss_heads,
    pooling,
    reduce,
    shape,
    softmax,
    softmax_output,
)

__all__ = [
    "activation",
    "arithmetic",
    "batch_norm",
    "concat",
    "convolution",
    "dense",
    "dropout",
    "elementwise",
    "fill",
    "identity",
    "loss_heads",
    "pooling",
    "reduce",
    "shape",
    "softmax",
    "softmax_output",
]
