"""SequenceMask, SequenceLast and SequenceReverse: sequences of several lengths.

Data is (time, batch, ...), or (batch, time, ...) where `axis` is 1. Without
`use_sequence_length` all sequences are as long as the time axis.

Sources: MXNet's `src/operator/sequence_mask-inl.h`, `src/operator/sequence_last-inl.h`
and `src/operator/sequence_reverse-inl.h`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import unify
from runtime.ops.rules import free_label


@dataclass(frozen=True)
class LastOrReverse:
    """Attributes of SequenceLast and SequenceReverse; the latter has axis 0 only."""

    use_sequence_length: bool = False
    axis: int = 0


@dataclass(frozen=True)
class Mask(LastOrReverse):
    """Attributes of SequenceMask: `value` stands beyond the end."""

    value: float = 0.0


def _inputs(p: LastOrReverse) -> tuple[str, ...]:
    return ("data", "sequence_length") if p.use_sequence_length else ("data",)


def _check(p: LastOrReverse, data: tuple[int, ...], axes: tuple[int, ...]) -> None:
    if p.axis not in axes:
        raise ShapeError(f"`axis` (={p.axis}) must be one of {axes}")
    if len(data) < 2:
        raise ShapeError(
            f"`data` must have axes for time and batch, but has shape {data}"
        )


def _lengths(p: LastOrReverse, data: Array, inputs: Sequence[Any]) -> Array:
    """One length for each row of the batch."""
    steps, batch = data.shape[:2]
    if not p.use_sequence_length:
        return np.full(batch, steps)
    lengths: Array = np.clip(inputs[1], 0, steps).astype(np.intp)
    return lengths


def _mask(p: LastOrReverse, data: Array, lengths: Array) -> Array:
    """1 within a sequence, 0 beyond; broadcasts against (time, batch, ...)."""
    inside: Array = np.arange(len(data))[:, None] < lengths
    return inside.reshape(inside.shape + (1,) * (data.ndim - 2))


def _last_index(p: LastOrReverse, data: Array, lengths: Array) -> Any:
    return np.maximum(lengths - 1, 0), np.arange(data.shape[1])


def _reverse_index(p: LastOrReverse, data: Array, lengths: Array) -> Any:
    time = np.arange(len(data))[:, None]
    source = np.where(time < lengths, lengths - 1 - time, time)
    return source, np.arange(data.shape[1])


def _time_first(p: LastOrReverse, array: Array) -> Array:
    return array.swapaxes(0, 1) if p.axis == 1 else array


def _register(
    name: str,
    attributes: type,
    axes: tuple[int, ...],
    index: Callable[[Any, Array, Array], Any] | None,
) -> None:
    """Register one; without `index` it masks, else it reads and keeps what it reads."""
    drops_time = index is _last_index

    def shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
        data, *lengths = inputs
        if data is None:
            return inputs, outputs
        _check(p, data, axes)
        batch = data[1 - p.axis]
        lengths = [unify(other, (batch,), "sequence_length") for other in lengths]
        result = (batch, *data[2:]) if drops_time else data
        return [data, *lengths], [unify(outputs[0], result, "output")]

    def forward(
        p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        data = _time_first(p, inputs[0])
        lengths = _lengths(p, data, inputs)
        if index is None:
            value = np.where(_mask(p, data, lengths), data, data.dtype.type(p.value))
            _time_first(p, outputs[0])[...] = value
        else:
            outputs[0][...] = data[index(p, data, lengths)]

    def backward(
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        if grads_in[0] is None:
            return
        target = _time_first(p, grads_in[0])
        lengths = _lengths(p, target, inputs)
        if index is None:
            grad = _time_first(p, grads_out[0])
            target[...] = np.where(_mask(p, target, lengths), grad, 0)
        else:
            # No element is read twice, so there is nothing to add up.
            target[...] = 0
            target[index(p, target, lengths)] = grads_out[0]

    register(
        Operator(
            name=name,
            attributes=attributes,
            inputs=_inputs,
            no_gradient=("sequence_length",),
            shape=shape,
            dtype=free_label,
            forward=forward,
            backward=backward,
            saved=lambda p: Saved(inputs=(1,) if p.use_sequence_length else ()),
        )
    )


_register("SequenceMask", Mask, (0, 1), None)
_register("SequenceLast", LastOrReverse, (0, 1), _last_index)
_register("SequenceReverse", LastOrReverse, (0,), _reverse_index)
