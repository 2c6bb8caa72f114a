"""Parts of one graph on different devices compute what one device computes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from runtime.actors import open_runtime
from runtime.context import DeviceId
from runtime.errors import DeviceError, GradientError, GraphError, ShapeError
from runtime.executor.group import ExecutorGroup, GroupSpec, InputSpec, Updater
from runtime.executor.observation import Observed
from runtime.executor.staged import StagedReplica
from runtime.graph.ir import Graph
from tests.harness.cancellation import PLACES as GATES
from tests.harness.cancellation import GatePlace, cancel_at_every_step
from tests.runtime.executor.fragile import Direction, failing_on, hooked
from tests.runtime.executor.nets import (
    Arrays,
    Sgd,
    apply,
    devices,
    first_values,
    open_group,
    same,
    snapshot,
    variable,
)
from tests.runtime.executor.staged_nets import (
    BATCH,
    NETS,
    assert_close,
    chain,
    fragile_chain,
    in_groups,
    inputs_of,
    shared_weight,
    spec_of,
    trained,
    two_outputs,
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


def at(place: str, graph: Any, **options: Any) -> GroupSpec:
    where, placements = PLACES[place]
    return spec_of(graph, where, placements, **options)


def alone(graph: Any, count: int = 1, **options: Any) -> GroupSpec:
    return spec_of(graph, devices(*["reference"] * count), **options)


SOME = ["host", "crossed", "one device for both", "simulated shares", "mixed"]


@pytest.mark.parametrize("place", SOME)
async def test_a_step_is_forward_backward_and_update(place: str) -> None:
    results = []
    for whole in (True, False):
        async with open_group(at(place, chain())) as group:
            sgd = Sgd(group.spec)
            for k in range(3):
                if whole:
                    await group.step(inputs_of(group.spec, k), sgd.updater)
                else:
                    await group.forward(inputs_of(group.spec, k), True)
                    await group.backward()
                    await group.update(sgd.updater)
            [out] = await group.outputs()
            results.append(await snapshot(group) | {"out": out})
    assert same(*results)


@pytest.mark.parametrize("place", SOME)
async def test_steps_in_flight_are_steps(place: str) -> None:
    spec = at(place, NETS["back_and_forth"]())
    async with open_group(spec) as group:
        wanted = await trained(group, 4)
    async with open_group(spec) as group:
        sgd = Sgd(spec, spread=0.01)
        await group.prepare(sgd.updater)
        under_way = []
        for k in range(4):
            await group.acquire_slot()
            under_way.append(group.dispatch_step(inputs_of(spec, k), sgd.updater))
        outputs = [await pending.outputs() for pending in under_way]
        found = await snapshot(group)
        assert same(found, {name: wanted[name] for name in found})
        assert np.array_equal(outputs[-1][0], wanted["out 0"])


@pytest.mark.parametrize("place", SOME)
async def test_heads_of_outputs_that_are_no_losses(place: str) -> None:
    head = np.random.RandomState(3).randn(BATCH, 4).astype(np.float32)
    results: list[Arrays] = []
    count = len(PLACES[place][0])
    for spec in (alone(two_outputs(), count), at(place, two_outputs())):
        async with open_group(spec) as group:
            await group.forward(inputs_of(spec), True)
            with pytest.raises(GradientError, match="a_fc_output"):
                await group.backward()
            await group.backward({"a_fc_output": head})
            loss, x = await group.outputs()
            results.append(
                {"loss": loss, "x": x}
                | await group.gradients()
                | await group.input_gradients()
            )
    assert_close(results[1], results[0])


async def test_a_step_needs_no_heads_or_says_so() -> None:
    spec = at("host", two_outputs())
    async with open_group(spec) as group:
        before = await snapshot(group)
        with pytest.raises(GradientError, match="`a_fc_output` is no loss"):
            await group.step(inputs_of(spec), Sgd(spec).updater)
        assert same(before, await snapshot(group))


@pytest.mark.parametrize("place", SOME)
async def test_backward_twice_and_backward_without_forward(place: str) -> None:
    spec = at(place, chain(), request="write")
    async with open_group(spec) as group:
        with pytest.raises(GradientError, match="training forward"):
            await group.backward()
        await group.forward(inputs_of(spec), True)
        await group.backward()
        first, outputs = await group.gradients(), await group.outputs()
        [other] = await group.predict(inputs_of(spec, 5))  # disturbs nothing
        assert not np.array_equal(other, outputs[0])
        assert np.array_equal((await group.outputs())[0], outputs[0])
        await group.backward()
        assert same(first, await group.gradients())
        await group.forward(inputs_of(spec), False)
        with pytest.raises(GradientError, match="training forward"):
            await group.backward()


async def test_a_device_that_becomes_idle_adds_nothing() -> None:
    """After a whole batch comes one of a single row."""
    results: list[Arrays] = []
    for make in (lambda: alone(chain(), 2), lambda: at("two shares", chain())):
        spec = make()
        small = GroupSpec(
            spec.graph,
            spec.devices,
            spec.workload,
            (InputSpec("data", (1, 4)),),
            (InputSpec("softmax_label", (1,)),),
            gradients=spec.gradients,
            placements=spec.placements,
        )
        async with open_runtime(), open_group(spec) as group:
            await group.forward(inputs_of(spec), True)
            await group.backward()
            async with open_group(small, shared=group) as one:
                batch = inputs_of(spec)
                rows = {name: array[:1] for name, array in batch.items()}
                sgd = Sgd(small)
                await one.step(rows, sgd.updater)
                gradients = await one.gradients()
                results.append(await snapshot(group) | gradients)
    assert same(*results)


@pytest.mark.parametrize("place", ["host", "two shares", "mixed"])
async def test_gradients_are_whole_before_they_are_read(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members that add to another's gradients do so when that one has arrived."""
    arrived = threading.Event()
    meet = StagedReplica._meet_at_gradients

    def note_and_meet(replica: StagedReplica) -> None:
        if not replica.is_idle:
            arrived.set()
        meet(replica)

    monkeypatch.setattr(StagedReplica, "_meet_at_gradients", note_and_meet)

    def halve(index: int, weight: Any, gradient: Any, state: Any) -> None:
        weight -= 0.5 * gradient

    def come_later(thread: str, direction: Direction) -> None:
        if direction == "backward":
            assert arrived.wait(10)

    results: list[Arrays] = []
    count = len(PLACES[place][0])
    for spec in (alone(fragile_chain(), count), at(place, fragile_chain())):
        wishes = {name: wish for name, wish in spec.gradients.items() if name != "data"}
        spec = replace(spec, gradients=wishes)
        updater = Updater(None, tuple(wishes), function=halve)
        async with open_group(spec) as group:
            await group.prepare(updater)
            with hooked(come_later if spec.placements else lambda *_: None):
                await group.step(inputs_of(spec), updater)
            results.append(await snapshot(group))
    assert_close(*results)


async def test_no_member_runs_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members use memory of each other's: a call ends for all before another begins."""
    spec = at("host", chain())
    gate, reached = threading.Event(), trio.Event()
    began: list[str] = []
    zero = StagedReplica.zero_gradients

    def zero_late(replica: StagedReplica) -> None:
        if not replica.is_idle:
            assert gate.wait(10)
        zero(replica)

    monkeypatch.setattr(StagedReplica, "zero_gradients", zero_late)
    token = trio.lowlevel.current_trio_token()

    def watch(event: str, thread: str, command: Any) -> None:
        if command.label == "forward" and event == "reached":
            token.run_sync_soon(reached.set)
        if command.label == "forward" and event == "began":
            began.append(thread)

    async with open_runtime() as runtime, open_group(spec) as group:
        runtime.observe(watch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(group.zero_gradients)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(group.forward, inputs_of(spec), True)
            await reached.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            before = list(began)
            gate.set()
        assert before == []
        assert len(began) == 3


# Failures -----------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("place", ["host", "crossed", "two shares", "simulated"])
async def test_if_one_stage_fails_nothing_has_changed(
    place: str, direction: Direction
) -> None:
    spec = at(place, fragile_chain())
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.step(inputs_of(spec), sgd.updater)
        before = await snapshot(group)
        failing = str(PLACES[place][1][-1]["b"])
        with (
            hooked(failing_on(failing, direction)),
            pytest.raises(ArithmeticError, match="injected") as caught,
        ):
            await group.step(inputs_of(spec, 1), sgd.updater)
        assert f"on {failing}" in caught.value.__notes__
        assert len(caught.value.__notes__) < 4  # nobody else complains
        assert same(before, await snapshot(group))
        assert sgd.count == 1
        await group.step(inputs_of(spec, 1), sgd.updater)
        after = await snapshot(group)
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        for k in range(2):
            await group.step(inputs_of(spec, k), sgd.updater)
        # A failed step counts as a training forward, and nothing here is random.
        assert same(after, await snapshot(group))


@pytest.mark.parametrize("place", ["host", "crossed", "simulated"])
async def test_only_who_failed_complains(place: str) -> None:
    spec = at(place, fragile_chain())
    failing = str(PLACES[place][1][0]["a"])
    async with open_group(spec) as group:
        with (
            hooked(failing_on(failing, "forward")),
            pytest.raises(ArithmeticError) as caught,
        ):
            await group.step(inputs_of(spec), Sgd(spec).updater)
        assert not any("Gradient" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("place", ["host", "crossed", "simulated"])
async def test_after_a_failed_forward_there_is_nothing_to_read(place: str) -> None:
    spec = at(place, fragile_chain())
    failing = str(PLACES[place][1][0]["a"])
    async with open_group(spec) as group:
        await group.forward(inputs_of(spec), True)
        with hooked(failing_on(failing, "forward")):
            for is_train in (True, False):
                with pytest.raises(ArithmeticError):
                    await group.forward(inputs_of(spec), is_train)
                with pytest.raises(DeviceError, match="no outputs"):
                    await group.outputs()
                with pytest.raises(GradientError, match="training forward"):
                    await group.backward()
            with pytest.raises(ArithmeticError):
                await group.predict(inputs_of(spec))
        await group.forward(inputs_of(spec), True)
        await group.backward()
        with hooked(failing_on(failing, "backward")), pytest.raises(ArithmeticError):
            await group.backward()
        await group.backward()
        assert len(await group.predict(inputs_of(spec))) == 1


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("place", ["host", "one device for both", "mixed"])
@pytest.mark.parametrize("call", ["step", "predict", "zero_gradients", "create"])
async def test_whatever_is_cancelled_leaves_a_whole_step(
    call: str, place: str, gate: GatePlace
) -> None:
    spec = at(place, shared_weight())
    async with open_runtime() as runtime, open_group(spec) as group:
        expected: list[Arrays] = []
        sgd = Sgd(spec)
        for _ in range(30):
            expected.append(await snapshot(group))
            await group.step(inputs_of(spec), sgd.updater)
        await group.forget(sgd.updater)
        await group.write_parameters(*first_values(group))
        sgd = Sgd(spec)
        made: list[ExecutorGroup] = []

        async def run() -> None:
            if call == "step":
                await group.step(inputs_of(spec), sgd.updater)
            elif call == "predict":
                await group.predict(inputs_of(spec))
            elif call == "zero_gradients":
                await group.zero_gradients()
            else:
                made.append(await ExecutorGroup.create(spec, runtime, group))

        async def check(finished: bool) -> None:
            while made:
                await made.pop().aclose()
            assert same(await snapshot(group), expected[sgd.count])

        steps = await cancel_at_every_step(run, check, runtime=runtime, place=gate)
        assert steps >= 1
        before = sgd.count
        await group.step(inputs_of(spec), sgd.updater)
        assert sgd.count == before + 1
        await check(True)


# Memory -------------------------------------------------------------------------------


async def test_memory_is_where_the_groups_are() -> None:
    async with open_group(at("simulated shares", chain())) as group:
        storage = group._memory.storage
        held = [set(s.plan.tensors.get("parameter", ())) for s in storage]
        in_a, in_b = {"a_fc_weight", "a_fc_bias"}, {"b_fc_weight", "b_fc_bias"}
        assert held == [set(), in_a, in_b] * 2
        assert [set(s.plan.tensors.get("gradient", ())) for s in storage] == held


async def test_host_members_share_what_they_keep() -> None:
    async with open_group(at("two shares", chain())) as group:
        storage = group._memory.storage
        assert len({id(s.segments["parameter"]) for s in storage}) == 1
        gradients = [id(s.segments["gradient"]) for s in storage]
        assert gradients == [gradients[0]] * 3 + [gradients[3]] * 3
        assert gradients[0] != gradients[3]
        assert group.slices == (slice(0, 3), slice(3, 6))


async def test_shared_memory_needs_the_same_groups() -> None:
    first = at("mixed", chain())
    moved = in_groups(chain(), {"a_fc": "b", "a_": "a", "b_": "b"})
    async with open_runtime(), open_group(first) as group:
        with pytest.raises(GraphError, match="`a_fc_weight` lives on"):
            async with open_group(at("mixed", moved), shared=group):
                pass
        other = at("host", chain())
        with pytest.raises(ValueError, match="shared group"):
            async with open_group(other, shared=group):
                pass
        await trained(group)


# What comes and goes ------------------------------------------------------------------


@pytest.mark.parametrize("place", SOME)
async def test_states_reach_every_stage(place: str) -> None:
    data, state = variable("data"), variable("state")
    x = apply("elemwise_add", "a_sum", data, state)
    x = apply("elemwise_mul", "b_product", x, state)
    graph = in_groups(Graph((apply("make_loss", "b_loss", x),)), {"a_": "a", "b_": "b"})
    where, placements = PLACES[place]
    values = np.random.RandomState(0).randn(BATCH, 4).astype(np.float32)
    spec = GroupSpec(
        graph,
        where,
        (1.0,) * len(where),
        (InputSpec("data", (BATCH, 4)),),
        states=(InputSpec("state", (BATCH, 4)),),
        gradients={"data": "write"},
        placements=placements,
    )
    async with open_group(spec) as group:
        await group.set_states({"state": np.split(values, len(where))})
        batch = np.ones((BATCH, 4), np.float32)
        await group.forward({"data": batch}, True)
        await group.backward()
        [out] = await group.outputs()
        np.testing.assert_allclose(out, (1 + values) * values, rtol=1e-6)
        gradients = await group.input_gradients()
        np.testing.assert_allclose(gradients["data"], values, rtol=1e-6)
        [again] = await group.predict({"data": batch})
        np.testing.assert_array_equal(again, out)
        assert same(
            {"state": np.concatenate((await group.get_states())["state"])},
            {"state": values},
        )
        await group.set_states(value=2.0)
        [again] = await group.predict({"data": batch})
        np.testing.assert_array_equal(again, np.full_like(batch, 6))


class Shown:
    """The first value of each name."""

    def __init__(self) -> None:
        self.values: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        assert not self.values

    def __call__(self, o: Observed) -> None:
        with self._lock:
            self.values.setdefault((o.device, o.phase, o.name), o.value.copy())


@pytest.mark.parametrize("place", ["host", "crossed", "mixed"])
async def test_monitors_see_the_whole_graph(place: str) -> None:
    seen: list[dict[tuple[Any, ...], Any]] = []
    for spec in (alone(chain(), len(PLACES[place][0])), at(place, chain())):
        shown = Shown()
        async with open_group(spec) as group:
            sgd = Sgd(spec)
            await group.step(inputs_of(spec), sgd.updater)
            await group.step(inputs_of(spec, 1), sgd.updater, shown)
        seen.append(shown.values)
    plain, staged = seen
    assert plain.keys() == staged.keys()
    assert any(name == "a_tanh_output" for _, _, name in plain)
    for key, value in plain.items():
        np.testing.assert_allclose(staged[key], value, rtol=1e-5, err_msg=str(key))


@pytest.mark.parametrize("place", ["host", "simulated"])
@pytest.mark.parametrize("group_", ["a", "b"])
async def test_a_monitored_step_that_fails_shows_nothing(
    place: str, group_: str
) -> None:
    spec = at(place, fragile_chain())
    shown = Shown()
    async with open_group(spec) as group:
        sgd = Sgd(spec)
        await group.step(inputs_of(spec), sgd.updater)
        failing = str(PLACES[place][1][0][group_])
        for direction in ("forward", "backward"):
            with (
                hooked(failing_on(failing, direction)),
                pytest.raises(ArithmeticError),
            ):
                await group.step(inputs_of(spec), sgd.updater, shown)
        assert not shown.values
        with hooked(failing_on(failing, "forward")), pytest.raises(ArithmeticError):
            await group.step(inputs_of(spec), sgd.updater)  # not monitored
        await group.step(inputs_of(spec), sgd.updater, shown)
        assert "a_fc_output" in {name for _, _, name in shown.values}


async def test_wrong_inputs_are_refused() -> None:
    async with open_group(at("host", chain())) as group:
        with pytest.raises(ShapeError):
            await group.forward({"data": np.zeros((1, 4), np.float32)}, True)
