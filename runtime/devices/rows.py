"""Rows that Python runs: definitions, gradient rules and updates as callables.

Everything that can be looked up is looked up here, once; what is left is a call with
arrays that are there already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.devices import sparse
from runtime.devices.contract import StepKey
from runtime.graph import registry
from runtime.graph.attributes import parse
from runtime.graph.plan import DefinitionRow, Operand, UpdateRow
from runtime.graph.registry import Mode
from runtime.ops.random import PhiloxSource
from runtime.ops.update import get_rule

Array = NDArray[Any]
Run = Callable[[StepKey], None]
View = Callable[[Operand], Any]


def bind_definition(
    row: DefinitionRow, view: View, device: str, states: dict[int, Any]
) -> Run:
    """A definition row as a callable.

    Args:
        row: The row.
        view: From an operand to the array, or the sparse place, that it stands for.
        device: The device's name, for errors.
        states: What nodes keep in this program, by position.
    """

    def views(operands: tuple[Operand | None, ...]) -> list[Any]:
        return [None if operand is None else view(operand) for operand in operands]

    inputs, outputs = views(row.inputs), views(row.outputs)
    has_csr = any(isinstance(place, sparse.CsrPlace) for place in (*inputs, *outputs))
    if row.operator in _PLANNER_ROWS:
        planner_row = _PLANNER_ROWS[row.operator]
        return lambda key: planner_row(inputs, outputs)
    operator = registry.get(row.operator)
    attributes: Any = parse(operator.attributes, row.attributes, row.operator)
    grads_out, grads_in = views(row.grads_out), views(row.grads_in)
    explain = Explain(row, device)
    if operator.state is not None and row.position not in states:
        with explain:
            states[row.position] = operator.state(attributes, inputs, device)
    plain = Mode(row.is_train, state=states.get(row.position))

    def mode(key: StepKey) -> Mode:
        if not operator.is_random:
            return plain
        source = PhiloxSource(key.seed, row.position, key.step, key.row)
        return Mode(row.is_train, source)

    def forward(key: StepKey) -> None:
        with explain:
            operator.forward(attributes, inputs, outputs, mode(key))

    def forward_csr(key: StepKey) -> None:
        with explain:
            if operator.keeps_zeros:
                sparse.map_stored(operator, attributes, inputs[0], outputs[0], plain)
            else:
                given = list(map(sparse.current, inputs))
                operator.forward(attributes, given, outputs, mode(key))

    rule = operator.backward

    def backward(key: StepKey) -> None:
        assert rule is not None
        given = list(map(sparse.current, inputs)) if has_csr else inputs
        with explain:
            rule(attributes, grads_out, given, outputs, grads_in, mode(key))

    if row.backward:
        return backward
    return forward_csr if has_csr else forward


def bind_update(row: UpdateRow, view: View) -> Run:
    """An update row as a callable; what it reads stays as it is."""
    apply = get_rule(row.rule).apply
    weight, hyper = view(row.weight), view(row.hyper)
    gradients = [view(gradient) for gradient in row.gradients]
    states = [view(state) for state in row.states]
    master = None if row.master is None else view(row.master)
    results = [view(result) for result in row.results]
    ones = np.ones_like(weight) if row.reset else None

    def run(key: StepKey) -> None:
        total = gradients[0]
        for gradient in gradients[1:]:
            total = total + gradient
        before = weight if ones is None else ones
        if master is not None:
            before = refined(master, before)
            total = total.astype(before.dtype)
        after, states_after = apply(before, total, states, hyper)
        new = (
            (after, *states_after) if master is None else (after, *states_after, after)
        )
        for place, value in zip(results, new, strict=True):
            place[...] = value

    return run


def refined(master: Array, weight: Array) -> Array:
    """The master copy of a weight, or the weight itself where it was set to another.

    The master only adds what the weight's precision has no room for. So it needs no
    first value, and follows whoever sets the weight.
    """
    return np.where(master.astype(weight.dtype) == weight, master, weight)


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


_PLANNER_ROWS: dict[str, Callable[[list[Any], list[Any]], None]] = {
    "=": lambda inputs, outputs: sparse.copy(inputs[0], outputs[0]),
    "+=": lambda inputs, outputs: sparse.add(inputs[0], outputs[0]),
    "0": lambda inputs, outputs: sparse.clear(outputs[0]),
    "rows=": lambda inputs, outputs: sparse.copy_rows(inputs[0], outputs[0]),
}
