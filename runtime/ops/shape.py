"""Reshape and Flatten: the same elements under another shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from runtime.errors import ShapeError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    PartialShape,
    Shapes,
    register,
)
from runtime.graph.shapes import is_known, unify


@dataclass(frozen=True)
class Reshape:
    """Attributes of Reshape.

    Attributes:
        shape: Target sizes, or codes: 0 copies a size, -1 is inferred, -2 copies all
            that remain, -3 merges two, -4 splits one into the next two (one of which
            may be -1).
        reverse: Match codes and sizes from the right.
        target_shape: MXNet's older form, read if `shape` is empty: 0 is inferred.
        keep_highest: With `target_shape`: keep the first size.
    """

    shape: tuple[int, ...] = ()
    reverse: bool = False
    target_shape: tuple[int, ...] = ()
    keep_highest: bool = False


def reshaped(p: Reshape, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The output's shape.

    Raises:
        ShapeError: if the codes do not fit the shape.
    """
    if p.shape:
        codes, sizes = list(p.shape), list(shape)
        if p.reverse:
            codes, sizes = _reversed_codes(codes), sizes[::-1]
        target = list(_matched(codes, sizes, p.shape))
        if p.reverse:
            target.reverse()
    elif p.target_shape:
        target = [n or -1 for n in p.target_shape]
        if p.keep_highest:
            target[0] = shape[0]
    else:
        raise ShapeError("`shape` must be given")
    if target.count(-1) > 1:
        raise ShapeError(f"`shape` (={p.shape}) leaves more than one size to infer")
    if -1 in target:
        known = prod(n for n in target if n != -1)
        target[target.index(-1)] = prod(shape) // known if known else 0
    if prod(target) != prod(shape):
        raise ShapeError(
            f"`shape` (={p.shape or p.target_shape}) gives {tuple(target)}, which has "
            f"not the {prod(shape)} elements of {shape}"
        )
    return tuple(target)


def _reversed_codes(codes: list[int]) -> list[int]:
    """From right to left, but -4 stays before the two sizes that belong to it."""
    result = codes[::-1]
    for i, code in enumerate(result):
        if code == -4 and i >= 2:
            result[i - 2 : i + 1] = [-4, result[i - 2], result[i - 1]]
    return result


def _matched(
    codes: list[int], sizes: list[int], shape: tuple[int, ...]
) -> Iterator[int]:
    """Yield the target sizes; -1 where one is to be inferred."""
    remaining = iter(sizes)
    pending = iter(codes)
    try:
        for code in pending:
            if code == -2:
                yield from remaining
            elif code == -3:
                yield next(remaining) * next(remaining)
            elif code == -4:
                whole, first, second = next(remaining), next(pending), next(pending)
                first = whole // max(second, 1) if first == -1 else first
                second = whole // max(first, 1) if second == -1 else second
                if first * second != whole:
                    raise ShapeError(
                        f"`shape` (={shape}) splits {whole} into {first} x {second}"
                    )
                yield first
                yield second
            elif code == 0:
                yield next(remaining)
            else:
                next(remaining, None)
                yield code
    except StopIteration:
        raise ShapeError(
            f"`shape` (={shape}) asks for more sizes than there are in {tuple(sizes)}"
        ) from None


def _completed(data: PartialShape, output: PartialShape) -> PartialShape:
    """The input's one unknown size, from the number of elements of the output."""
    if data is None or not is_known(output) or data.count(0) != 1:
        return data
    size = prod(output) // prod(n for n in data if n)
    return tuple(n or size for n in data)


def _shape(p: Reshape, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data = _completed(inputs[0], outputs[0])
    output = outputs[0]
    if is_known(data):
        output = unify(output, reshaped(p, data), "output")
    return [data], [output]


def _flat_shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data = _completed(inputs[0], outputs[0])
    output = outputs[0]
    if data is not None:
        output = unify(output, (data[0], prod(data[1:])), "output")
        assert output is not None
        data = (output[0], *data[1:])
    return [data], [output]


def view_forward(
    p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    """Copy the input under the output's shape."""
    outputs[0][...] = inputs[0].reshape(outputs[0].shape)


def view_backward(
    p: Any,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    """Copy the gradient under the input's shape."""
    grads_in[0][...] = grads_out[0].reshape(grads_in[0].shape)


register(
    Operator(
        name="Reshape",
        aliases=("reshape",),
        attributes=Reshape,
        shape=_shape,
        forward=view_forward,
        backward=view_backward,
        is_view=True,
    )
)
register(
    Operator(
        name="Flatten",
        aliases=("flatten",),
        shape=_flat_shape,
        forward=view_forward,
        backward=view_backward,
        is_view=True,
    )
)
