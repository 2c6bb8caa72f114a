from __future__ import annotations

import os

import pytest

from runtime.actors import open_runtime
from runtime.actors.affinity import shares
from runtime.context import DeviceId


@pytest.mark.parametrize(
    ("cores", "count", "expected"),
    [
        ([0, 1], 1, [{0, 1}]),
        ([0, 1], 2, [{0}, {1}]),
        ([3, 5, 7], 2, [{3}, {5, 7}]),
        (range(8), 2, [{0, 1, 2, 3}, {4, 5, 6, 7}]),
        ([0, 1], 3, [{0, 1}, {0, 1}, {0, 1}]),
    ],
)
def test_shares(cores: list[int], count: int, expected: list[set[int]]) -> None:
    assert shares(list(cores), count) == expected


@pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2,
    reason="needs two cores and a system that pins threads",
)
@pytest.mark.parametrize("wanted", [True, False])
async def test_device_threads_keep_to_cores_of_their_own(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCMOD_AFFINITY", "1" if wanted else "0")
    before = os.sched_getaffinity(0)
    async with open_runtime() as runtime:
        one = runtime.actor(DeviceId("cpu", 0)).thread.native_id
        assert os.sched_getaffinity(one) == before
        two = runtime.actor(DeviceId("cpu", 1)).thread.native_id
        places = os.sched_getaffinity(one), os.sched_getaffinity(two)
        assert os.sched_getaffinity(0) == before
    if wanted:
        assert not places[0] & places[1]
        assert places[0] | places[1] == before
    else:
        assert places == (before, before)
