"""Products of attention with several heads, as Gluon's transformers export them.

Queries, keys and values lie interleaved in one array, (length, batch, heads x parts x
size); attention is (batch x heads, length of queries, length of keys).

Source: MXNet's `src/operator/contrib/transformer.cc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Array, Mode, Operator, Saved, Shapes, register
from runtime.graph.shapes import is_known, unify
from runtime.ops.rules import accumulator


@dataclass(frozen=True)
class Heads:
    """Attributes: how many `heads` there are."""

    heads: int


@dataclass(frozen=True)
class _Products:
    """One operator.

    Attributes:
        name: MXNet's, without `_contrib_interleaved_matmul_`.
        inputs: Their names.
        parts: Into how many parts each input is interleaved; 0 for attention.
        factors: Which input, and which part of it, the two factors are.
    """

    name: str
    inputs: tuple[str, ...]
    parts: tuple[int, ...]
    factors: tuple[tuple[int, int], tuple[int, int]]

    @property
    def makes_attention(self) -> bool:
        return 0 not in self.parts


OPERATORS = (
    _Products("selfatt_qk", ("queries_keys_values",), (3,), ((0, 0), (0, 1))),
    _Products(
        "selfatt_valatt",
        ("queries_keys_values", "attention"),
        (3, 0),
        ((1, 0), (0, 2)),
    ),
    _Products("encdec_qk", ("queries", "keys_values"), (1, 2), ((0, 0), (1, 0))),
    _Products("encdec_valatt", ("keys_values", "attention"), (2, 0), ((1, 0), (0, 1))),
)


def _split(p: Heads, array: Array, parts: int) -> Array:
    """A view: (parts, batch, heads, length, size), or attention by batch and head."""
    if not parts:
        return array.reshape(1, -1, p.heads, *array.shape[1:])
    length, batch, width = array.shape
    apart = array.reshape(length, batch, p.heads, parts, width // (p.heads * parts))
    return apart.transpose(3, 1, 2, 0, 4)


def _sizes(p: Heads, shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """Length, batch and size of an interleaved array."""
    if len(shape) != 3 or p.heads < 1 or shape[2] % (p.heads * parts):
        raise ShapeError(
            f"an array of shape {shape} is not (length, batch, heads x {parts} x size) "
            f"with `heads` (={p.heads})"
        )
    return shape[0], shape[1], shape[2] // (p.heads * parts)


def _shape(
    kind: _Products, p: Heads, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    known = [shape for shape in inputs if is_known(shape)]
    if len(known) < len(inputs):
        return inputs, outputs
    if kind.makes_attention:
        rows, columns = (
            _sizes(p, known[which], kind.parts[which]) for which, _ in kind.factors
        )
        if rows[1:] != columns[1:]:
            raise ShapeError(f"queries and keys of shapes {known} do not fit")
        made = (rows[1] * p.heads, rows[0], columns[0])
    else:
        length, batch, size = _sizes(p, known[0], kind.parts[0])
        attention = known[1]
        if len(attention) != 3 or attention[::2] != (batch * p.heads, length):
            raise ShapeError(
                f"attention of shape {attention} does not fit values of {known[0]}"
            )
        made = (attention[1], batch, p.heads * size)
    return inputs, [unify(outputs[0], made, "output")]


def _operands(
    kind: _Products, p: Heads, inputs: Sequence[Array]
) -> tuple[Array, Array, float]:
    """Both factors, the second one as columns, and what products are multiplied by."""
    wide = accumulator(inputs[0].dtype)
    first, second = (
        _split(p, inputs[which], kind.parts[which])[part].astype(wide, copy=False)
        for which, part in kind.factors
    )
    if not kind.makes_attention:
        return first, second, 1.0
    return first, np.swapaxes(second, -1, -2), 1 / sqrt(first.shape[-1])


def _forward(
    kind: _Products,
    p: Heads,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    mode: Mode,
) -> None:
    first, second, scale = _operands(kind, p, inputs)
    place = _split(p, outputs[0], 0 if kind.makes_attention else 1)
    place[0] = first @ second * scale


def _backward(
    kind: _Products,
    p: Heads,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    first, second, scale = _operands(kind, p, inputs)
    head = _split(p, grads_out[0], 0 if kind.makes_attention else 1)[0] * scale
    slopes = [head @ np.swapaxes(second, -1, -2), np.swapaxes(first, -1, -2) @ head]
    if kind.makes_attention:
        slopes[1] = np.swapaxes(slopes[1], -1, -2)
    for gradient in grads_in:
        if gradient is not None:
            gradient[...] = 0  # of parts that are no factor
    for (which, part), slope in zip(kind.factors, slopes, strict=True):
        if grads_in[which] is not None:
            _split(p, grads_in[which], kind.parts[which])[part] = slope


for _kind in OPERATORS:
    register(
        Operator(
            name=f"_contrib_interleaved_matmul_{_kind.name}",
            attributes=Heads,
            inputs=_kind.inputs,
            shape=partial(_shape, _kind),
            forward=partial(_forward, _kind),
            backward=partial(_backward, _kind),
            saved=Saved(tuple(range(len(_kind.inputs)))),
        )
    )
