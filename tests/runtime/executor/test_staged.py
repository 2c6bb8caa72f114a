"""Parts of one graph on different devices compute what one device computes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from runtime.actors import open_runtime
from runtime.context import DeviceId
from tests.runtime.executor.nets import (
    devices,
    open_group,
    same,
)
from tests.runtime.executor.staged_nets import (
    NETS,
    assert_close,
    spec_of,
    trained,
)

Placements = tuple[Mapping[str, DeviceId], ...]

R = devices(*["reference"] * 6)
C = devices(*["cpu"] * 6)
S = devices(*["simulated"] * 6)

# Where the shares of the batch are, and for each of them where its groups are.
PLACES: dict[str, tuple[tuple[DeviceId, ...], Placements]] = {
    "host": (R[:1], ({"a": R[1], "b": R[2]},)),
    "on its own device": (R[:1], ({"a": R[0], "b": R[0]},)),
    "cpu": (C[:1], ({"a": C[0], "b": C[1]},)),
    "simulated": (S[:1], ({"a": S[1], "b": S[2]},)),
    "mixed": (R[:1], ({"a": S[1], "b": R[1]},)),
    "two shares": (R[:2], ({"a": R[2], "b": R[3]}, {"a": R[4], "b": R[5]})),
    "crossed": (R[:2], ({"a": R[0], "b": R[1]}, {"a": R[1], "b": R[0]})),
    "one device for both": (R[:2], ({"a": R[2], "b": R[3]},) * 2),
    "simulated shares": (S[:2], ({"a": S[2], "b": S[3]}, {"a": S[4], "b": S[5]})),
    "simulated for both": (S[:2], ({"a": S[2], "b": S[3]},) * 2),
    "mixed shares": (R[:2], ({"a": R[0], "b": S[1]}, {"a": R[1], "b": S[2]})),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("request_", ["write", "add"])
async def test_stages_train_as_one_graph_does(
    net: str, place: str, request_: str
) -> None:
    where, placements = PLACES[place]
    graph = NETS[net]()
    kind = "cpu" if place == "cpu" else "reference"
    whole = spec_of(graph, devices(*[kind] * len(where)), request=request_)
    staged = spec_of(graph, where, placements, request=request_)
    async with open_runtime():
        async with open_group(whole) as group:
            wanted = await trained(group)
        async with open_group(staged) as group:
            assert len(group._replicas) >= len(where)
            found = await trained(group)
    host = all(d.kind == "reference" for d in where + tuple(placements[0].values()))
    if host and net != "shared_weight":
        assert same(found, wanted)
    else:
        assert_close(found, wanted)
