"""Operators: NumPy definitions, shape rules and gradient rules, one file per family.

Importing this package fills the table of `runtime.graph.registry`.
"""

from runtime.ops import (
    activation,
    arithmetic,
    axes,
    batch_norm,
    cast,
    concat,
    convolution,
    dense,
    dropout,
    elementwise,
    fill,
    identity,
    indexing,
    layer_norm,
    loss_heads,
    pooling,
    products,
    reduce,
    shape,
    slice,
    softmax,
    softmax_output,
)

__all__ = [
    "activation",
    "arithmetic",
    "axes",
    "batch_norm",
    "cast",
    "concat",
    "convolution",
    "dense",
    "dropout",
    "elementwise",
    "fill",
    "identity",
    "indexing",
    "layer_norm",
    "loss_heads",
    "pooling",
    "products",
    "reduce",
    "shape",
    "slice",
    "softmax",
    "softmax_output",
]
