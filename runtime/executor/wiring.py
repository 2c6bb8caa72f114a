"""Which tensors go from stage to stage, and by which way: made once at bind.

A *channel* carries one tensor from one thread to another, once per pass: values go
forward, from the stage that makes them to every stage that reads them; gradients go
back from user to user, each of which adds its contribution, and end where the value
was made. That is the order in which one device would add them.

Next: `runtime.executor.stage_work`, which uses what is wired here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from runtime.graph.compile import GradientRequest
from runtime.graph.face import output_names
from runtime.graph.gradient import needing_gradient, required_heads
from runtime.graph.ir import Entry, Graph
from runtime.graph.passes.stages import Stage

Channel = SimpleQueue[Any]


@dataclass(frozen=True)
class Link:
    """A tensor of a stage's program that arrives, leaves, or does both.

    Attributes:
        segment: Where it lies; "" for a link that carries nothing but the order.
        name: The tensor.
        arrives: Where it comes from before the stage runs.
        leaves: Where it goes after that.
    """

    segment: str
    name: str
    arrives: Channel | None = None
    leaves: tuple[Channel, ...] = ()


@dataclass
class StageLinks:
    """What a stage is connected to.

    Attributes:
        forward, backward: The links of each pass.
        requests: Gradient requests for the variables of the stage's graph.
    """

    forward: list[Link] = field(default_factory=list)
    backward: list[Link] = field(default_factory=list)
    requests: dict[str, GradientRequest] = field(default_factory=dict)


@dataclass
class Wiring:
    """All channels of one share; most of those below `stages` end at its leader.

    Attributes:
        stages: Per stage.
        outputs: One per output of the whole graph.
        states: Where the values of state inputs are wanted.
        heads: Where the head gradients of outputs are wanted.
        accumulated: Where gradients of inputs that are added to are wanted.
        input_gradients: Where gradients of inputs come from.
        finished: Where each member that uses another's memory for gradients tells it
            that it has added its own.
        shown: Where each member but the leader hands the leader what it keeps, with
            the number of the pass, if a monitor asks for that.
    """

    stages: tuple[StageLinks, ...]
    outputs: list[Channel] = field(default_factory=list)
    states: dict[str, list[Channel]] = field(default_factory=dict)
    heads: dict[str, Channel] = field(default_factory=dict)
    accumulated: dict[str, Channel] = field(default_factory=dict)
    input_gradients: dict[str, Channel] = field(default_factory=dict)
    finished: dict[int, Channel] = field(default_factory=dict)
    shown: dict[int, Channel] = field(default_factory=dict)


def wire(
    graph: Graph,
    stages: Sequence[Stage],
    gradients: Mapping[str, GradientRequest],
    inputs: Collection[str],
    states: Collection[str],
) -> Wiring:
    """Connect the stages of a graph.

    Args:
        graph: The whole graph.
        stages: Its stages, in order.
        gradients: Request per argument; what is not named is "null".
        inputs: Arguments that are no parameters.
        states: Those of them that the leader keeps.
    """
    wiring = Wiring(tuple(StageLinks() for _ in stages))
    _wire_values(wiring, graph, stages, states)
    wished = {name: wish for name, wish in gradients.items() if wish != "null"}
    _wire_crossing_gradients(wiring, graph, stages, wished)
    for node in graph.arguments:
        if node.name in wished:
            if node.name in inputs:
                _wire_input_gradient(wiring, stages, node.name, wished[node.name])
            else:
                _order_additions(wiring, stages, node.name, wished[node.name])
    return wiring


def _wire_values(
    wiring: Wiring, graph: Graph, stages: Sequence[Stage], states: Collection[str]
) -> None:
    leaves: dict[Entry, list[Channel]] = {e: [] for s in stages for e in s.sent}
    for stage, links in zip(stages, wiring.stages, strict=True):
        for entry, name in stage.received.items():
            channel = Channel()
            links.forward.append(Link("input", name, channel))
            leaves[entry].append(channel)
        for name in _variables(stage).intersection(states):
            channel = Channel()
            links.forward.append(Link("input", name, channel))
            wiring.states.setdefault(name, []).append(channel)
    for entry in graph.outputs:
        channel = Channel()
        leaves[entry].append(channel)
        wiring.outputs.append(channel)
    for stage, links in zip(stages, wiring.stages, strict=True):
        for name, entry in zip(output_names(stage.graph), stage.sent, strict=True):
            links.forward.append(Link("output", name, None, tuple(leaves[entry])))


def _wire_crossing_gradients(
    wiring: Wiring,
    graph: Graph,
    stages: Sequence[Stage],
    wished: Mapping[str, GradientRequest],
) -> None:
    """Gradients of what leaves a stage: back through its users to where it was made."""
    requested = frozenset(Entry(n) for n in graph.arguments if n.name in wished)
    needed = needing_gradient(graph, requested)
    heads = required_heads(graph, needed)
    for stage, links in zip(stages, wiring.stages, strict=True):
        for entry in stage.sent:
            operator = entry.node.operator
            is_loss = operator is not None and operator.ignores_head_gradient(
                entry.node.attributes
            )
            if entry not in needed or is_loss:
                continue
            flow: Channel | None = None
            if entry in heads:
                flow = wiring.heads[entry.name] = Channel()
            users = [
                (user.received[entry], user_links)
                for user, user_links in zip(stages, wiring.stages, strict=True)
                if entry in user.received
            ]
            for name, user_links in reversed(users):
                flow = _add_to(user_links, name, "write", flow)
            links.backward.append(Link("head", entry.name, flow))


def _wire_input_gradient(
    wiring: Wiring, stages: Sequence[Stage], name: str, wish: GradientRequest
) -> None:
    flow: Channel | None = None
    if wish == "add":
        flow = wiring.accumulated[name] = Channel()
    for links in reversed(_users(wiring, stages, name)):
        flow = _add_to(links, name, wish, flow)
    assert flow is not None
    wiring.input_gradients[name] = flow


def _add_to(
    links: StageLinks, name: str, wish: GradientRequest, flow: Channel | None
) -> Channel:
    """Let a stage add its contribution to what flows by."""
    links.requests[name] = wish if flow is None else "add"
    after = Channel()
    links.backward.append(Link("input_gradient", name, flow, (after,)))
    return after


def _order_additions(
    wiring: Wiring, stages: Sequence[Stage], name: str, wish: GradientRequest
) -> None:
    """Several stages add to one gradient of a parameter: one after another."""
    flow: Channel | None = None
    users = _users(wiring, stages, name)
    for k, links in enumerate(reversed(users)):
        links.requests[name] = wish if k == 0 else "add"
        leaves = (Channel(),) if k < len(users) - 1 else ()
        if flow is not None or leaves:
            links.backward.append(Link("", name, flow, leaves))
        flow = leaves[0] if leaves else None


def _users(wiring: Wiring, stages: Sequence[Stage], name: str) -> list[StageLinks]:
    pairs = zip(stages, wiring.stages, strict=True)
    return [links for stage, links in pairs if name in _variables(stage)]


def _variables(stage: Stage) -> set[str]:
    return {node.name for node in stage.graph.arguments}
