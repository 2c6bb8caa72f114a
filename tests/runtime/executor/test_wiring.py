"""Who sends what to whom, in which order gradients add up."""

from __future__ import annotations

from itertools import pairwise

from runtime.executor.wiring import StageLinks, Wiring, wire
from runtime.graph.compile import GradientRequest
from runtime.graph.ir import Graph
from runtime.graph.passes.stages import cut, place_nodes
from tests.runtime.executor.staged_nets import shared_weight, two_outputs

PLACES = {"a": "A", "b": "B"}
INPUTS = ("data", "softmax_label")


def wired(graph: Graph, wish: GradientRequest = "write") -> Wiring:
    places = place_nodes(graph, PLACES, "A")
    stages = cut(graph, places, INPUTS, {"A": "host", "B": "host"})
    names = [n.name for n in graph.arguments if n.name != "softmax_label"]
    return wire(graph, stages, dict.fromkeys(names, wish), INPUTS, ())


def turns(wiring: Wiring, segment: str, name: str) -> list[StageLinks]:
    """The stages that pass something on, found by following the channels."""
    links = {
        id(stage): link
        for stage in wiring.stages
        for link in stage.backward
        if (link.segment, link.name) == (segment, name)
    }
    stages = [stage for stage in reversed(wiring.stages) if id(stage) in links]
    for before, after in pairwise(stages):
        assert links[id(before)].leaves == (links[id(after)].arrives,)
    return stages


def test_stages_that_share_a_gradient_add_to_it_in_turn() -> None:
    wiring = wired(shared_weight())
    users = [s for s in wiring.stages if "weight" in s.requests]
    assert len(users) == 3
    found = [s.requests["weight"] for s in users]
    assert found == ["add", "add", "write"]  # the last stage goes backward first
    # The order itself is passed on, with no tensor.
    stages = [
        stage
        for stage in wiring.stages
        if any(link.name == "weight" for link in stage.backward)
    ]
    assert stages == users
    assert turns(wiring, "", "weight") == users[::-1]


def test_gradients_that_are_kept_are_added_to_by_all() -> None:
    wiring = wired(shared_weight(), "add")
    found = [s.requests["weight"] for s in wiring.stages if "weight" in s.requests]
    assert found == ["add"] * 3
    assert "data" in wiring.accumulated


def test_gradients_of_data_end_at_the_leader() -> None:
    wiring = wired(shared_weight())
    users = turns(wiring, "input_gradient", "data")
    assert len(users) == 2
    [last] = [link for link in users[-1].backward if link.name == "data"]
    assert last.leaves == (wiring.input_gradients["data"],)
    assert not wiring.accumulated


def test_heads_begin_at_the_leader() -> None:
    wiring = wired(two_outputs())
    assert list(wiring.heads) == ["a_fc_output"]
    assert len(wiring.outputs) == 2
    # The stage that reads the output adds to its head.
    [reader] = [s for s in wiring.stages if "@a_fc.0" in s.requests]
    assert reader.requests["@a_fc.0"] == "add"
    [link] = [link for link in reader.backward if link.name == "@a_fc.0"]
    assert link.arrives is wiring.heads["a_fc_output"]
