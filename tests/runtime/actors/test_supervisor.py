"""When what has died is started again: intensity, period, strategies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.actors.supervisor import Supervisor, WorkerPolicy


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_for_one_starts_the_one_that_died() -> None:
    supervisor = Supervisor()
    for child in "abc":
        supervisor.started(child)
    assert supervisor.died("b") == ["b"]
    assert supervisor.died("new") == ["new"]


def test_rest_for_one_starts_those_behind_it_too() -> None:
    supervisor = Supervisor("rest_for_one")
    for child in "abca":
        supervisor.started(child)
    assert supervisor.died("b") == ["b", "c"]
    assert supervisor.died("a") == ["a", "b", "c"]
    supervisor.ended("b")
    assert supervisor.died("a") == ["a", "c"]
    assert supervisor.died("b") == ["b"]


def test_more_than_so_many_deaths_within_a_period_are_too_many() -> None:
    clock = Clock()
    policy = WorkerPolicy(restarts=2, period=10.0)
    supervisor = Supervisor(policy=policy, clock=clock)
    assert supervisor.died("a") == ["a"]
    clock.now += 10.0
    assert supervisor.died("b") == ["b"]
    clock.now += 0.5  # the first one is out of the period by now
    assert supervisor.died("a") == ["a"]
    assert not supervisor.given_up
    assert supervisor.died("a") is None
    assert supervisor.given_up


def test_who_has_given_up_starts_nothing_again() -> None:
    clock = Clock()
    supervisor = Supervisor(policy=WorkerPolicy(restarts=0), clock=clock)
    assert supervisor.died("a") is None
    clock.now += 1e6
    assert supervisor.died("b") is None


@given(
    st.lists(st.floats(0, 30), max_size=30),
    st.integers(0, 4),
    st.floats(0.1, 20),
)
def test_it_gives_up_at_the_first_window_with_too_many(
    pauses: list[float], restarts: int, period: float
) -> None:
    clock, times = Clock(), []
    supervisor = Supervisor(policy=WorkerPolicy(restarts, period), clock=clock)
    for pause in pauses:
        clock.now += pause
        times.append(clock.now)
        recent = [t for t in times if clock.now - t <= period]
        answer = supervisor.died("a")
        assert (answer is None) == (len(recent) > restarts)
        if answer is None:
            return


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"restarts": -1}, r"restarts \(=-1\) must not be negative"),
        ({"period": 0.0}, r"period \(=0.0\) must be a positive time in seconds"),
        ({"deadline": -1.0}, r"deadline \(=-1.0\)"),
        ({"heartbeat": float("nan")}, r"heartbeat \(=nan\)"),
    ],
)
def test_policies_that_mean_nothing(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorkerPolicy(**settings)  # type: ignore[arg-type]


def test_unknown_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match="one_for_one"):
        Supervisor("one_for_all")  # type: ignore[arg-type]
