"""Descriptions of inputs: what users write for shapes, parsed and checked."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
    NameMismatchError,
)
from asyncmod.io.batch import DataDesc

PARAMETER_ENDINGS = ("_weight", "_bias", "_gamma", "_beta")


def check_input_names(
    kind: str, names: Sequence[str], arguments: Sequence[str], required: bool
) -> None:
    """Check that the symbol has arguments of these names.

    Args:
        kind: The parameter that gave them, such as "data_names".
        names: The names.
        arguments: The symbol's arguments.
        required: Raise if one is missing; otherwise only warn.

    Raises:
        NameMismatchError: one is missing; lists the arguments that are no parameters.
    """
    for name in names:
        if name in arguments:
            continue
        candidates = [a for a in arguments if not a.endswith(PARAMETER_ENDINGS)]
        listed = ", ".join(f"`{candidate}`" for candidate in candidates) or "none"
        message = (
            f"{kind}={list(names)} has `{name}`, which is not found in "
            f"symbol.list_arguments(); those that look like inputs are: {listed}"
        )
        if required:
            raise NameMismatchError(message)
        warnings.warn(message, stacklevel=4)


def parse_shapes(kind: str, shapes: Any) -> tuple[DataDesc, ...]:
    """`data_shapes` or `label_shapes` as descriptions; None gives ().

    Args:
        kind: The parameter's name, for errors.
        shapes: DataDesc objects or (name, shape[, dtype[, layout]]) sequences.

    Raises:
        ArgumentTypeError: one is not of this form, or a shape is no tuple of integers.
        ArgumentError: a size is not positive.
        NameMismatchError: a name stands twice.
    """
    if shapes is None:
        return ()
    if isinstance(shapes, DataDesc) or not isinstance(shapes, Iterable):
        raise ArgumentTypeError(
            f"`{kind}` must be a list of DataDesc or (name, shape), not {shapes!r}"
        )
    parsed = tuple(_parse(kind, item) for item in shapes)
    names = [description.name for description in parsed]
    for name in names:
        if names.count(name) > 1:
            raise NameMismatchError(f"`{kind}` describes `{name}` twice: {names}")
    return parsed


def _parse(kind: str, item: Any) -> DataDesc:
    if isinstance(item, DataDesc):
        _check_sizes(kind, item.name, item.shape)
        return item
    if not isinstance(item, list | tuple) or not 2 <= len(item) <= 4:
        raise ArgumentTypeError(
            f"`{kind}` must hold DataDesc or (name, shape) entries, not {item!r}: "
            f'write {kind}=[("data", (32, 10))]'
        )
    name, shape, *rest = item
    if not isinstance(name, str):
        raise ArgumentTypeError(f"`{kind}` has the name {name!r}, which is no string")
    if not isinstance(shape, list | tuple):
        raise ArgumentTypeError(
            f"`{kind}` has shape {shape!r} for `{name}`; a shape is a tuple of integers"
        )
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        raise ArgumentTypeError(
            f"`{kind}` has shape {shape!r} for `{name}`; a shape is a tuple of integers"
        ) from None
    _check_sizes(kind, name, sizes)
    try:
        return DataDesc(name, sizes, *rest)
    except TypeError as error:
        raise ArgumentTypeError(
            f"`{kind}` has dtype {rest[0]!r} for `{name}`: {error}"
        ) from None


def _check_sizes(kind: str, name: str, shape: tuple[int, ...]) -> None:
    if not shape or min(shape) < 1:
        raise ArgumentError(
            f"`{kind}` has shape {shape} for `{name}`; there must be at least one axis "
            "and every size must be positive"
        )


def check_described(
    kind: str, described: Sequence[DataDesc], names: Sequence[str], required: bool
) -> None:
    """Check that descriptions and names of the inputs agree, in any order.

    Raises:
        NameMismatchError: they differ and are `required` to agree.
    """
    given = sorted(description.name for description in described)
    if given == sorted(names):
        return
    message = (
        f"{kind.capitalize()} provided by {kind}_shapes don't match names specified by "
        f"{kind}_names ({given} vs. {sorted(names)})"
    )
    if required:
        raise NameMismatchError(message)
    warnings.warn(message, stacklevel=4)


def batch_axis(description: DataDesc) -> int:
    """The batch axis of an input, -1 if it has none."""
    return DataDesc.get_batch_axis(description.layout)


def batch_size(descriptions: Iterable[DataDesc]) -> int:
    """The batch size that all batched inputs share; 1 if none is batched.

    Raises:
        ArgumentError: two differ, or a layout puts the batch axis where none is.
    """
    size: int | None = None
    for description in descriptions:
        axis = batch_axis(description)
        if axis < 0:
            continue
        if axis >= len(description.shape):
            raise ArgumentError(
                f"`{description.name}` has shape {description.shape}, but its layout "
                f"{description.layout!r} puts the batch on axis {axis}"
            )
        if size is None:
            size = description.shape[axis]
        elif description.shape[axis] != size:
            raise ArgumentError(
                f"all data must have the same batch size: batch_size = {size}, but "
                f"{description.name} has shape {description.shape}"
            )
    return 1 if size is None else size


def with_shape(description: DataDesc, shape: Sequence[int]) -> DataDesc:
    """The same input with another shape."""
    return DataDesc(description.name, shape, description.dtype, description.layout)
