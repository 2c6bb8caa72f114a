"""Activation: five of the elementwise functions under one operator.

Source: MXNet's `src/operator/nn/activation-inl.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runtime.graph.registry import Array, Mode, Operator, Saved, register
from runtime.ops.elementwise import TABLE, row
from runtime.ops.rules import one_shape


@dataclass(frozen=True)
class Activation:
    """Attributes of Activation."""

    act_type: Literal["relu", "sigmoid", "tanh", "softrelu", "softsign"]


def _softrelu(x: Array) -> Array:
    """log(1 + e^x), without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# All five derivatives read the output alone, so the input need not be kept.
FUNCTIONS = {entry.name: entry for entry in TABLE} | {
    "softrelu": row("softrelu", _softrelu, lambda g, y: g * -np.expm1(-y))
}


def _forward(
    p: Activation, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    FUNCTIONS[p.act_type].forward(p, inputs, outputs, mode)


def _backward(
    p: Activation,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    FUNCTIONS[p.act_type].backward(p, grads_out, inputs, outputs, grads_in, mode)


register(
    Operator(
        name="Activation",
        attributes=Activation,
        shape=one_shape,
        forward=_forward,
        backward=_backward,
        saved=Saved(outputs=(0,)),
    )
)
