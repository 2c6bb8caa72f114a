"""What a net costs: floating point operations, and memory between its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from asyncmod.errors import AsyncmodError
from runtime.devices.factory import create_device
from runtime.graph.compile import Request, compile_plan, parameter_names
from runtime.graph.ir import Graph, Node, Shape

# Operators that only move numbers, or make them from nothing.
_MOVING = """
    BlockGrad Cast Concat Crop Embedding Flatten MakeLoss Pad Reshape SequenceLast
    SequenceReverse SliceChannel SwapAxis _arange _copy _full _ones _zeros batch_take
    broadcast_axis broadcast_like broadcast_to depth_to_space diag expand_dims gather_nd
    make_loss ones_like one_hot pick repeat reshape_like reverse scatter_nd shape_array
    size_array slice slice_axis slice_like space_to_depth squeeze stack take
    tile transpose zeros_like
"""
_MOVES = frozenset(_MOVING.split())


def flops(node: Node, inputs: list[Shape], output: Shape) -> int:
    """Floating point operations of a node's forward, for the whole batch.

    A multiplication and an addition count as two. Convolutions, dense and recurrent
    layers and products are exact but for activations inside; pooling counts its
    window, a reduction what it reads, what only moves numbers nothing, and all else one
    for each number it gives.

    Args:
        node: An operator or a variable.
        inputs: Shapes of what it reads.
        output: Shape of its first output.
    """
    if node.operator is None or node.operator.is_view or node.operator.name in _MOVES:
        return 0
    rule = _RULES.get(node.operator.name)
    return prod(output) if rule is None else rule(node.attributes, inputs, output)


def activation_bytes(
    graph: Graph, inputs: Mapping[str, Shape]
) -> tuple[int, int] | None:
    """Memory for what lies between the layers, by the plan of a CPU device.

    That is all memory of a step but for parameters, their gradients, and what is fed
    to the net and read from it; the memory of a value is used again when it is dead.

    Args:
        graph: The net.
        inputs: Shapes of what is fed; all other arguments are parameters.

    Returns:
        Bytes for predicting and for training (with all gradients of parameters); None
        if the net cannot be bound, for two nodes of one name, say.
    """
    native = create_device("cpu").native
    parameters = parameter_names(graph, inputs)
    planned = []
    for is_train in (False, True):
        request = Request(
            graph,
            tuple(inputs),
            inputs,
            gradients=dict.fromkeys(parameters, "write") if is_train else {},
            is_train=is_train,
            native=native,
        )
        try:
            segments = compile_plan(request).segments
        except AsyncmodError:
            return None
        planned.append(segments.get("arena", 0) + segments.get("halo", 0))
    return planned[0], planned[1]


Rule = Callable[[Any, list[Shape], Shape], int]


def _convolution(p: Any, inputs: list[Shape], output: Shape) -> int:
    bias = 0 if p.no_bias else prod(output)
    return 2 * prod(output) * prod(inputs[1][1:]) + bias


def _deconvolution(p: Any, inputs: list[Shape], output: Shape) -> int:
    bias = 0 if p.no_bias else prod(output)
    return 2 * prod(inputs[0]) * prod(inputs[1][1:]) + bias


def _dense(p: Any, inputs: list[Shape], output: Shape) -> int:
    bias = 0 if p.no_bias else prod(output)
    return 2 * prod(output) * inputs[1][1] + bias


def _dot(p: Any, inputs: list[Shape], output: Shape) -> int:
    summed = inputs[0][0] if p.transpose_a else inputs[0][-1]
    return 2 * prod(output) * summed


def _batch_dot(p: Any, inputs: list[Shape], output: Shape) -> int:
    return 2 * prod(output) * inputs[0][1 if p.transpose_a else 2]


def _recurrent(p: Any, inputs: list[Shape], output: Shape) -> int:
    """Every weight is used once per step of every sequence."""
    steps, sequences = inputs[0][:2]
    return 2 * steps * sequences * prod(inputs[1])


def _pooling(p: Any, inputs: list[Shape], output: Shape) -> int:
    return prod(inputs[0]) if p.global_pool else prod(output) * prod(p.kernel)


def _reduction(p: Any, inputs: list[Shape], output: Shape) -> int:
    return prod(inputs[0])


_REDUCING = "argmax argmax_channel argmin max mean min nanprod nansum norm prod sum"
_RULES: dict[str, Rule] = {
    "Convolution": _convolution,
    "Deconvolution": _deconvolution,
    "FullyConnected": _dense,
    "Pooling": _pooling,
    "RNN": _recurrent,
    "batch_dot": _batch_dot,
    "dot": _dot,
    **dict.fromkeys(_REDUCING.split(), _reduction),
}
