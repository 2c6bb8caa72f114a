"""The arguments of `bind`: MXNet's form, and shapes as separate arguments."""

from __future__ import annotations

from typing import Any

from asyncmod.errors import ArgumentError, ArgumentTypeError
from asyncmod.io.batch import DataDesc

DEFAULTS: dict[str, Any] = {
    "data_shapes": None,
    "label_shapes": None,
    "for_training": True,
    "inputs_need_grad": False,
    "force_rebind": False,
    "shared_module": None,
    "grad_req": "write",
}
"""In the order in which they are taken by position."""


def collect(positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """The arguments that were given, by name; those with their defaults are left out.

    `bind([("data", (8, 10))], [("softmax_label", (8,))])` is MXNet's form;
    `bind(("data", (8, 10)), ("mask", (8,)))` gives data shapes one by one.

    Raises:
        ArgumentTypeError: an argument stands twice, or there are too many.
    """
    if positional and all(_is_description(value) for value in positional):
        positional = (list(positional),)
    if len(positional) > len(DEFAULTS):
        raise ArgumentTypeError(
            f"bind takes at most {len(DEFAULTS)} arguments by position, in the order "
            f"{', '.join(DEFAULTS)}; {len(positional)} were given"
        )
    arguments = {n: value for n, value in named.items() if value != DEFAULTS[n]}
    for name, value in zip(DEFAULTS, positional, strict=False):
        if arguments.get(name) is not None:
            raise ArgumentTypeError(f"bind got `{name}` by position and by name")
        arguments[name] = value
    if arguments.get("data_shapes") is None:
        raise ArgumentError(
            "bind needs `data_shapes`, for example "
            'data_shapes=[("data", (32, 10))], or an iterator\'s provide_data'
        )
    return {name: value for name, value in arguments.items() if value is not None}


def _is_description(value: Any) -> bool:
    if isinstance(value, DataDesc):
        return True
    return (
        isinstance(value, list | tuple)
        and len(value) >= 2
        and isinstance(value[0], str)
    )
