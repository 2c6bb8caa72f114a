"""Custom: an operator whose rules the program brings along.

The kinds are the program's own (see `asyncmod.operator`), so they are known in its
process alone. What an operator keeps from its forward to its backward belongs to one
program on one device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from runtime.errors import GraphError, OperatorError
from runtime.graph.attributes import Others
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import is_known
from runtime.ops.rules import Dtypes


class Running(Protocol):
    """An operator at work in one program."""

    def forward(
        self,
        is_train: bool,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        auxiliaries: Sequence[Array],
    ) -> None:
        """Write the outputs, and change the auxiliary states in place."""
        ...

    def backward(
        self,
        heads: Sequence[Array],
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        gradients: Sequence[Array | None],
        auxiliaries: Sequence[Array],
    ) -> None:
        """Write the gradients that are not None."""
        ...


@dataclass(frozen=True)
class Names:
    """What a custom operator says before shapes are known.

    Attributes:
        arguments, outputs, auxiliaries: Names in order.
        needs_heads: Whether its gradient depends on that of its outputs.

    Raises:
        OperatorError: there is no argument or no output, or two have one name.
    """

    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    auxiliaries: tuple[str, ...]
    needs_heads: bool

    def __post_init__(self) -> None:
        for what in ("arguments", "outputs"):
            listed = getattr(self, what)
            if not listed or len(set(listed)) < len(listed):
                raise OperatorError(
                    f"list_{what}() (={list(listed)}) of a custom operator must give "
                    "one or more names, each of them once"
                )


class Kind(Protocol):
    """What a custom operator says of itself; shapes and dtypes are of its inputs."""

    names: Names

    def shapes(self, arguments: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        """Of arguments, outputs and auxiliary states, from what is known."""
        ...

    def dtypes(self, arguments: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
        """The same of dtypes; the first argument's is known."""
        ...

    def start(self, device: str, inputs: Sequence[Array]) -> Running:
        """An operator for these inputs, auxiliary states last, on that device."""
        ...


@dataclass(frozen=True)
class _Definition:
    """A kind as it is registered.

    Attributes:
        make: Gives the kind for the other attributes, which are text.
        names: What kinds made of it have said, by those attributes.
    """

    make: Callable[[Mapping[str, str]], Kind]
    names: dict[Others, Names] = field(default_factory=dict)


_kinds: dict[str, _Definition] = {}


def define(name: str, make: Callable[[Mapping[str, str]], Kind]) -> None:
    """Make a kind known by a name, in place of one that had it before.

    Args:
        name: What `op_type` says.
        make: Gives the kind for the other attributes, which are text.
    """
    _kinds[name] = _Definition(make)


def defined() -> tuple[str, ...]:
    """Names of all kinds, in the order of their definition."""
    return tuple(_kinds)


@dataclass(frozen=True)
class Custom:
    """Attributes.

    Attributes:
        op_type: The name under which `mx.operator.register` knows it.
        others: Whatever else is given, for the operator's own constructor.
    """

    op_type: str
    others: Others = field(default_factory=Others)


def _definition(p: Custom) -> _Definition:
    try:
        return _kinds[p.op_type]
    except KeyError:
        raise OperatorError(
            f"there is no custom operator `{p.op_type}` in this process; there are: "
            f"{', '.join(_kinds) or 'none'}. Register it with mx.operator.register "
            "before the symbol is made or loaded; worker processes do not know what "
            "the program registers, so use devices with worker='thread'"
        ) from None


def _kind(p: Custom) -> Kind:
    """A new one, since it may keep what it is told about shapes."""
    make = _definition(p).make
    return _asked(p, "the constructor", lambda: make(dict(p.others)))


T = TypeVar("T")


def _asked(p: Custom, member: str, call: Callable[[], T]) -> T:
    """What the program's own code answers; an error says which part of it failed."""
    try:
        return call()
    except GraphError:
        raise
    except Exception as error:
        raise OperatorError(
            f"{member} of custom operator `{p.op_type}` failed: "
            f"{type(error).__name__}: {error}"
        ) from error


def _names(p: Custom) -> Names:
    known = _definition(p).names
    if p.others not in known:
        known[p.others] = _kind(p).names
    return known[p.others]


def _shape(p: Custom, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    given = inputs[: len(_names(p).arguments)]
    try:
        shapes = _asked(p, "infer_shape", lambda: _kind(p).shapes(given))
    except GraphError:
        if is_known(given[0]):
            raise
        return inputs, outputs  # without the first, the others may not follow yet
    return _checked(p, "infer_shape", shapes)


def _dtype(p: Custom, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    if inputs[0] is None:
        return inputs, outputs
    count = len(_names(p).arguments)
    given = [inputs[0] if dtype is None else dtype for dtype in inputs[:count]]
    dtypes = _asked(p, "infer_type", lambda: _kind(p).dtypes(given))
    return _checked(p, "infer_type", dtypes)


def _checked(
    p: Custom, rule: str, facts: tuple[list[Any], list[Any], list[Any]]
) -> tuple[list[Any], list[Any]]:
    """What a rule says of inputs and outputs, if it is as much as there are."""
    names = _names(p)
    expected = [len(names.arguments), len(names.outputs), len(names.auxiliaries)]
    counts = [len(part) for part in facts]
    if counts != expected:
        raise OperatorError(
            f"{rule} of custom operator `{p.op_type}` speaks of {counts} arguments, "
            f"outputs and auxiliary states, but it has {expected}"
        )
    arguments, outputs, auxiliaries = facts
    return [*arguments, *auxiliaries], outputs


@dataclass
class _State:
    """An operator at work.

    Attributes:
        names: Those of its kind as it was at first; another may have its name by now.
        running: The operator.
        auxiliaries: The auxiliary states that its last forward changed.
    """

    names: Names
    running: Running
    auxiliaries: Sequence[Array] = ()


def _state(p: Custom, inputs: Sequence[Array], device: str) -> _State:
    return _State(_names(p), _kind(p).start(device, inputs))


def _forward(
    p: Custom, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    state: _State = mode.state
    names, count = state.names, len(state.names.arguments)
    kept = inputs[count:]
    outputs, following = outputs[: len(names.outputs)], outputs[len(names.outputs) :]
    if not following:  # a prediction: what it changes is not kept
        following = [array.copy() for array in kept]
    else:
        for place, array in zip(following, kept, strict=True):
            place[...] = array
    state.auxiliaries = following
    state.running.forward(mode.is_train, inputs[:count], outputs, following)


def _backward(
    p: Custom,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    state: _State = mode.state
    heads = [
        np.zeros_like(output) if grad is None else grad
        for grad, output in zip(grads_out, outputs, strict=True)
    ]
    count = len(state.names.arguments)
    state.running.backward(heads, inputs[:count], outputs, grads_in, state.auxiliaries)


def _saved(p: Custom) -> Saved:
    names = _names(p)
    count = len(names.arguments) + len(names.auxiliaries)
    return Saved(tuple(range(count)), tuple(range(len(names.outputs))))


def _input_names(p: Custom) -> tuple[str, ...]:
    names = _names(p)
    return (*names.arguments, *names.auxiliaries)


register(
    Operator(
        name="Custom",
        attributes=Custom,
        inputs=_input_names,
        auxiliary=lambda p: _names(p).auxiliaries,
        outputs=lambda p: _names(p).outputs,
        shape=_shape,
        dtype=_dtype,
        state=_state,
        forward=_forward,
        backward=_backward,
        saved=_saved,
        is_loss=lambda p: not _names(p).needs_heads,
    )
)
