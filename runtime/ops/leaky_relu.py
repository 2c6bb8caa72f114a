"""LeakyReLU: rectifiers that pass something of what is negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sqrt
from typing import Any, Literal

import numpy as np

from runtime.errors import OperatorError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    PartialShape,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import unify
from runtime.ops.special import erf

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@dataclass(frozen=True)
class LeakyReLU:
    """Attributes; `slope` is of leaky and elu, the bounds are of rrelu."""

    act_type: Literal["elu", "gelu", "leaky", "prelu", "rrelu", "selu"] = "leaky"
    slope: float = 0.25
    lower_bound: float = 0.125
    upper_bound: float = 0.334


def _shape(p: LeakyReLU, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    if p.lower_bound > p.upper_bound:
        raise OperatorError(
            f"`lower_bound` (={p.lower_bound}) must not exceed `upper_bound` "
            f"(={p.upper_bound})"
        )
    data = unify(inputs[0], outputs[0], "data")
    rest = inputs[1:]
    if rest and data is not None and rest != [(1,)]:
        channels: PartialShape = data[1:2] if len(data) > 1 else (1,)
        rest = [unify(rest[0], channels, "gamma")]
    data = unify(data, outputs[-1], "data")
    return [data, *rest], [data] * len(outputs)


def _slope(p: LeakyReLU, inputs: Sequence[Any], mode: Mode) -> Any:
    """The factor of negative elements, where the function is linear there."""
    data = inputs[0]
    if p.act_type == "prelu":
        gamma = inputs[1]
        if gamma.size == 1:
            return gamma.reshape(())
        return gamma.reshape(1, -1, *[1] * (data.ndim - 2))
    if p.act_type == "leaky":
        return p.slope
    if not mode.is_train:
        return (p.lower_bound + p.upper_bound) / 2
    if mode.random is None:
        raise ValueError(
            "LeakyReLU needs random numbers here, but `mode.random` is None"
        )
    chosen = mode.random.uniform(data.shape)
    return p.lower_bound + (p.upper_bound - p.lower_bound) * chosen


def _forward(
    p: LeakyReLU, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    x, output = inputs[0], outputs[0]
    if p.act_type == "gelu":
        output[...] = x * (1 + erf(x / sqrt(2))) / 2
    elif p.act_type == "elu":
        output[...] = np.where(x > 0, x, p.slope * np.expm1(np.minimum(x, 0)))
    elif p.act_type == "selu":
        negative = SELU_ALPHA * np.expm1(np.minimum(x, 0))
        output[...] = SELU_SCALE * np.where(x > 0, x, negative)
    else:
        slope = _slope(p, inputs, mode)
        output[...] = np.where(x > 0, x, slope * x)
        for mask in outputs[1:]:
            mask[...] = np.where(x > 0, 1, slope)


def _derivative(
    p: LeakyReLU, inputs: Sequence[Any], outputs: Sequence[Any], mode: Mode
) -> Any:
    x = inputs[0]
    if p.act_type == "rrelu":
        return outputs[1]
    if p.act_type == "gelu":
        density = np.exp(-x * x / 2) / sqrt(2 * pi)
        return (1 + erf(x / sqrt(2))) / 2 + x * density
    if p.act_type == "elu":
        return np.where(x > 0, 1, p.slope * np.exp(np.minimum(x, 0)))
    if p.act_type == "selu":
        # MXNet adds the output, scale included, where the derivative has it without:
        # gradients below 0 come out smaller than by calculus.
        negative = SELU_ALPHA + SELU_SCALE * SELU_ALPHA * np.expm1(np.minimum(x, 0))
        return SELU_SCALE * np.where(x > 0, 1, negative)
    return np.where(x > 0, 1, _slope(p, inputs, mode))


def _backward(
    p: LeakyReLU,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    data, grad = inputs[0], grads_out[0]
    if grads_in[0] is not None:
        grads_in[0][...] = grad * _derivative(p, inputs, outputs, mode)
    if p.act_type == "prelu" and grads_in[1] is not None:
        products = grad * np.minimum(data, 0)
        if grads_in[1].size == 1:
            grads_in[1][...] = products.sum()
        else:
            axes = (0, *range(2, data.ndim))
            grads_in[1][...] = products.sum(axis=axes)


def _outputs(p: LeakyReLU) -> tuple[str, ...]:
    """The mask of rrelu is what it multiplied each element by."""
    return ("output", "mask") if p.act_type == "rrelu" else ("output",)


def _saved(p: LeakyReLU) -> Saved:
    if p.act_type == "rrelu":
        return Saved(outputs=(1,))
    return Saved(inputs=tuple(range(len(_inputs(p)))))


def _inputs(p: LeakyReLU) -> tuple[str, ...]:
    return ("data", "gamma") if p.act_type == "prelu" else ("data",)


register(
    Operator(
        name="LeakyReLU",
        attributes=LeakyReLU,
        inputs=_inputs,
        outputs=_outputs,
        shape=_shape,
        forward=_forward,
        backward=_backward,
        saved=_saved,
        is_random=True,
        parameter_defaults={"gamma": {"__init__": '["Constant", {"value": 0.25}]'}},
    )
)
