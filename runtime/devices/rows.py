"""Rows that Python runs: definitions, gradient rules and updates as callables.

Everything that can be looked up is looked up here, once; what is left is a call with
arrays that are there already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.devices.contract import StepKey
from runtime.graph import registry
from runtime.graph.attributes import parse
from runtime.graph.plan import DefinitionRow, Tensor, UpdateRow
from runtime.graph.registry import Mode
from runtime.ops.random import PhiloxSource
from runtime.ops.update import get_rule

Array = NDArray[Any]
Run = Callable[[StepKey], None]
View = Callable[[Tensor], Array]


def bind_definition(row: DefinitionRow, view: View, device: str) -> Run:
    """A definition row as a callable.

    Args:
        row: The row.
        view: From a tensor to the array over its memory.
        device: The device's name, for errors.
    """

    def views(tensors: tuple[Tensor | None, ...]) -> list[Any]:
        return [None if tensor is None else view(tensor) for tensor in tensors]

    inputs, outputs = views(row.inputs), views(row.outputs)
    if row.operator in _PLANNER_ROWS:
        planner_row = _PLANNER_ROWS[row.operator]
        return lambda key: planner_row(inputs, outputs)
    operator = registry.get(row.operator)
    attributes: Any = parse(operator.attributes, row.attributes, row.operator)
    grads_out, grads_in = views(row.grads_out), views(row.grads_in)
    explain = Explain(row, device)
    plain = Mode(row.is_train)

    def mode(key: StepKey) -> Mode:
        if not operator.is_random:
            return plain
        source = PhiloxSource(key.seed, row.position, key.step, key.row)
        return Mode(row.is_train, source)

    def forward(key: StepKey) -> None:
        with explain:
            operator.forward(attributes, inputs, outputs, mode(key))

    rule = operator.backward

    def backward(key: StepKey) -> None:
        assert rule is not None
        with explain:
            rule(attributes, grads_out, inputs, outputs, grads_in, mode(key))

    return backward if row.backward else forward


def bind_updates(rows: Sequence[UpdateRow], view: View) -> Run:
    """All update rows of a section as one callable; all take effect, or none does."""
    places = [
        (
            get_rule(row.rule).apply,
            view(row.weight),
            [view(gradient) for gradient in row.gradients],
            [view(state) for state in row.states],
            view(row.hyper),
            row.reset,
        )
        for row in rows
    ]

    def run(key: StepKey) -> None:
        written: list[tuple[Array, Array]] = []
        for apply, weight, gradients, states, hyper, reset in places:
            total = gradients[0]
            for gradient in gradients[1:]:
                total = total + gradient
            before = np.ones_like(weight) if reset else weight
            weight_after, states_after = apply(before, total, states, hyper)
            written.append((weight, weight_after))
            written.extend(zip(states, states_after, strict=True))
        for place, value in written:
            place[...] = value

    return run


class Explain:
    """Adds node, operator and device to whatever goes wrong in a definition."""

    __slots__ = ("_note",)

    def __init__(self, row: DefinitionRow, device: str) -> None:
        direction = "backward" if row.backward else "forward"
        self._note = f"in the {direction} of `{row.node}` ({row.operator}) on {device}"

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        if error is not None:
            error.add_note(self._note)


def _copy(inputs: list[Any], outputs: list[Any]) -> None:
    np.copyto(outputs[0], inputs[0], casting="unsafe")


def _add(inputs: list[Any], outputs: list[Any]) -> None:
    outputs[0] += inputs[0]


def _zero(inputs: list[Any], outputs: list[Any]) -> None:
    outputs[0].fill(0)


_PLANNER_ROWS: dict[str, Callable[[list[Any], list[Any]], None]] = {
    "=": _copy,
    "+=": _add,
    "0": _zero,
}
