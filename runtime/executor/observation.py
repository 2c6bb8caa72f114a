"""A second, unfused pass over a step: how a monitor sees what is inside.

The plan that runs a step fuses operators and reuses memory, so that most inner values
never exist. This pass computes the step again with the operators' NumPy definitions,
node by node, from copies of the same inputs and parameters and with the same random
numbers, and hands out every value. It changes nothing, and runs on the device's thread.

Next: `runtime.executor.replica`, which runs it after a step and before its update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.devices.contract import StepKey
from runtime.graph.gradient import needing_gradient
from runtime.graph.infer import infer
from runtime.graph.ir import Entry, Node
from runtime.graph.registry import Mode
from runtime.graph.request import Request
from runtime.ops.random import PhiloxSource

Array = NDArray[Any]
Phase = Literal["forward", "backward", "argument"]


@dataclass(frozen=True, slots=True)
class Observed:
    """One value of a device's pass.

    Attributes:
        device: The device's position in the group.
        phase: What made it; "argument" for arguments and auxiliary states.
        name: MXNet's name: `fc_output`, `fc_backward_output0`, `fc_weight`.
        value: The values; valid during the call only, and not to be written to.
        is_input: Whether an operator only reads it: `fc_data`.
    """

    device: int
    phase: Phase
    name: str
    value: Array
    is_input: bool = False


class Observe(Protocol):
    """What looks at all values of one call, on the device threads."""

    def begin(self) -> None:
        """The call begins; again if a device was lost in it, and all is shown anew."""
        ...

    def __call__(self, seen: Observed) -> None:
        """Look at a value; what it raises fails the call."""
        ...


Show = Callable[[Observed], None]


class UnfusedPass:
    """One device's pass over its rows of a batch."""

    def __init__(
        self,
        request: Request,
        values: Mapping[str, Array],
        key: StepKey,
        device: int,
        observe: Show,
    ) -> None:
        """Make it ready to run.

        Args:
            request: What the device's plan was compiled from.
            values: All arguments and auxiliary states.
            key: The step's key of random numbers.
            device: The device's position in the group.
            observe: Called with every value but those of the backward; what it
                raises ends the pass.
        """
        self._request = request
        self._graph = request.graph
        self._inference = infer(request.graph, request.shapes, request.dtypes)
        self._key = key
        self._device = device
        self._observe = observe
        self._values = {
            Entry(node): values[node.name]
            for node in request.graph.nodes
            if node.is_variable
        }
        self._parts: dict[Entry, list[Array]] = {}
        self._states: dict[Node, Any] = {}

    def arguments(self) -> None:
        """Hand out arguments, then auxiliary states, in the graph's order."""
        for node in (*self._graph.arguments, *self._graph.auxiliaries):
            self._show("argument", node.name, self._values[Entry(node)])

    def forward(self) -> None:
        """Compute every node, and hand out what it reads and what it gives."""
        for position, node in enumerate(self._graph.nodes):
            if not node.is_variable:
                try:
                    self._forward(node, position)
                except Exception as error:
                    error.add_note(f"in the monitor's forward of `{node.name}`")
                    raise

    def backward(self, heads: Mapping[str, Array], observe: Show) -> None:
        """Compute gradients after `forward`; `heads` are those of the outputs."""
        self._observe = observe
        requests = self._request.gradients
        requested = [
            Entry(node)
            for node in self._graph.arguments
            if requests.get(node.name, "null") != "null"
        ]
        needed = needing_gradient(self._graph, frozenset(requested))
        for entry in dict.fromkeys(self._graph.outputs):
            if entry.name in heads:
                self._parts[entry] = [heads[entry.name]]
        for position, node in reversed(list(enumerate(self._graph.nodes))):
            if not node.is_variable and Entry(node) in needed:
                try:
                    self._backward(node, position)
                except Exception as error:
                    error.add_note(f"in the monitor's backward of `{node.name}`")
                    raise
        for entry in requested:
            self._gradient(entry)

    def _forward(self, node: Node, position: int) -> None:
        operator = node.operator
        assert operator is not None
        inputs = [self._values[entry] for entry in node.inputs]
        names = operator.input_names(node.attributes)
        for entry, name, value in zip(node.inputs, names, inputs, strict=True):
            if entry.node.is_variable:
                self._show("forward", entry.name, value, is_input=True)
            self._show("forward", f"{node.name}_{name}", value, is_input=True)
        entries = outputs_of(node)
        outputs = [self._empty(entry) for entry in entries]
        # In training the definition writes the next auxiliary states too.
        held = node.auxiliary_inputs if self._request.is_train else ()
        next_states = [np.empty_like(self._values[entry]) for entry in held]
        with np.errstate(all="ignore"):
            operator.forward(
                node.attributes,
                inputs,
                [*outputs, *next_states],
                self._mode(node, position),
            )
        for entry, value in zip(entries, outputs, strict=True):
            self._values[entry] = value
            self._show("forward", entry.name, value)

    def _backward(self, node: Node, position: int) -> None:
        operator = node.operator
        assert operator is not None
        grads_out = [self._gradient(entry) for entry in outputs_of(node)]
        is_loss = operator.ignores_head_gradient(node.attributes)
        if not is_loss and all(gradient is None for gradient in grads_out):
            return
        targets = node.inputs[: len(node.inputs) - len(node.auxiliary_inputs)]
        if operator.shares_gradient:  # nothing is computed, so nothing is shown
            for target in targets:
                self._contribute(target, grads_out[0])
            return
        if operator.backward is None:
            return
        for i, gradient in enumerate(grads_out):
            if gradient is not None:
                name = f"{node.name}_backward_input{i}"
                self._show("backward", name, gradient, is_input=True)
        names = operator.input_names(node.attributes)[: len(targets)]
        followed = [name not in operator.no_gradient for name in names]
        grads_in = [np.zeros_like(self._values[target]) for target in targets]
        if operator.is_view and grads_out[0] is not None:
            grads_in[0][...] = grads_out[0].reshape(grads_in[0].shape)
        else:
            with np.errstate(all="ignore"):
                operator.backward(
                    node.attributes,
                    grads_out,
                    [self._values[entry] for entry in node.inputs],
                    [self._values[entry] for entry in outputs_of(node)],
                    [g if f else None for g, f in zip(grads_in, followed, strict=True)],
                    self._mode(node, position),
                )
        for i, (target, gradient) in enumerate(zip(targets, grads_in, strict=True)):
            number = i if len(targets) > 1 else ""
            self._show("backward", f"{node.name}_backward_output{number}", gradient)
            if followed[i]:
                self._contribute(target, gradient)

    def _gradient(self, entry: Entry) -> Array | None:
        """The sum of what has been contributed; None if nothing has."""
        parts = self._parts.get(entry)
        if not parts:
            return None
        if len(parts) > 1:
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            self._show("backward", "sum_grad_output", total)
            self._parts[entry] = [total]
        return self._parts[entry][0]

    def _contribute(self, entry: Entry, gradient: Array | None) -> None:
        if gradient is not None:
            self._parts.setdefault(entry, []).append(gradient)

    def _empty(self, entry: Entry) -> Array:
        return np.empty(self._inference.shapes[entry], self._inference.dtypes[entry])

    def _mode(self, node: Node, position: int) -> Mode:
        operator, key = node.operator, self._key
        assert operator is not None
        source = None
        if operator.is_random:
            source = PhiloxSource(key.seed, position, key.step, key.row)
        if operator.state is not None and node not in self._states:
            inputs = [self._values[entry] for entry in node.inputs]
            self._states[node] = operator.state(
                node.attributes, inputs, f"cpu({self._device})"
            )
        return Mode(self._request.is_train, source, self._states.get(node))

    def _show(
        self, phase: Phase, name: str, value: Array, *, is_input: bool = False
    ) -> None:
        self._observe(Observed(self._device, phase, name, value, is_input))


def outputs_of(node: Node) -> Sequence[Entry]:
    """All outputs of a node, hidden ones included."""
    return [Entry(node, i) for i in range(len(node.output_names))]


def ignore(seen: Observed) -> None:
    """Observe nothing."""


class Observable(Protocol):
    """A device's share of a group, which can show its last forward."""

    def observe(
        self,
        observe: Observe,
        *,
        forward: bool = False,
        heads: Mapping[str, Array] | None = None,
    ) -> None: ...


def watched(
    job: Callable[[], None],
    replica: Observable,
    observe: Observe | None,
    *,
    forward: bool = False,
    heads: Mapping[str, Array] | None = None,
) -> Callable[[], None]:
    """A job that ends by showing what it computed; the job itself without `observe`."""
    if observe is None:
        return job

    def run() -> None:
        job()
        replica.observe(observe, forward=forward, heads=heads)

    return run
