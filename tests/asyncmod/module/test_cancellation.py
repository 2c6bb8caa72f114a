"""Every call of a module, cancelled at every task step, leaves a whole step behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.io import DataBatch, NDArrayIter
from runtime.executor.group import ExecutorGroup
from tests.asyncmod.module.nets import (
    Array,
    aux_values,
    batch,
    mlp,
    mlp_bn,
    ready,
    rows,
    same,
    values,
)
from tests.harness.cancellation import PLACES, GatePlace, cancel_at_every_step

WHERE = {
    "cpu": [mx.cpu(0)],
    "reference": [mx.reference(0)],
    "references": [mx.reference(0), mx.reference(1)],
    "simulated": [mx.reference(0), mx.Context("simulated", 1)],
}
SETTINGS = {"learning_rate": 0.1, "momentum": 0.9}
State = dict[str, Array]
UNDISTURBED: dict[object, list[State]] = {}
"""By net and contexts: the states after 0, 1, 2, ... steps."""


async def state_of(module: mx.Module) -> State:
    """Parameters, auxiliary states and momentum: all that a step changes."""
    arguments, auxiliaries = await module.get_params()
    group = module.core.need_executors("test").first.group
    assert module.core.optimization is not None
    states = await group.read_updater_states(module.core.optimization.updater)
    momentum = {f"m {n}": v for n, v in states.get("momentum", {}).items()}
    return {**arguments, **auxiliaries, **momentum}


class Watched(mx.Module):
    """A module whose dispatched steps can be looked at."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.dispatched: list[Any] = []
        inside: Any = self.inside
        inside.dispatch_step = self._noted(inside.dispatch_step)
        inside.dispatch_predict = self._noted(inside.dispatch_predict)

    def _noted(self, dispatch: Any) -> Any:
        async def noted(*args: Any) -> Any:
            self.dispatched.append(await dispatch(*args))
            return self.dispatched[-1]

        return noted

    @contextmanager
    def nothing_under_way_after(self) -> Iterator[None]:
        """However the block ends, every step has ended or was withdrawn."""
        try:
            yield
        finally:
            while self.dispatched:
                command = self.dispatched.pop()._command
                assert command is None or command.finished or command.withdrawn


class Trained:
    """A module that always sees the same batch, and its states step by step."""

    def __init__(self, where: str, batch_norm: bool = False) -> None:
        net = mlp_bn() if batch_norm else mlp()
        self.module = Watched(net, context=WHERE[where])
        self.batch = batch()
        self.expected = UNDISTURBED.setdefault((batch_norm, *WHERE[where]), [])

    async def prepare(self, steps: int) -> None:
        """Have the states after 0, 1, 2, ... undisturbed steps, and go back.

        What an earlier test has noted holds here as well; some steps are made in any
        case, since the first one prepares what later ones find.
        """
        module = await ready(self.module, **SETTINGS)
        for count in range(2 if len(self.expected) >= steps else steps):
            state = await state_of(module)
            if count == len(self.expected):
                self.expected.append(state)
            assert same(state, self.expected[count])
            await module.step(self.batch)
        await module.set_params(values(module.symbol), aux_values(module.symbol))
        await module.init_optimizer(optimizer_params=SETTINGS, force_init=True)

    @property
    def count(self) -> int:
        assert self.module.optimizer is not None
        return self.module.optimizer.num_update

    def iterator(self, batches: int) -> NDArrayIter:
        """That many times the same batch."""
        data, label = self.batch.data[0], (self.batch.label or [None])[0]
        return NDArrayIter(np.tile(data, (batches, 1)), np.tile(label, batches), 8)

    async def check(self, finished: bool) -> None:
        assert same(await state_of(self.module), self.expected[self.count])

    # What is cancelled

    async def step(self) -> None:
        await self.module.step(self.batch)

    async def manual(self) -> None:
        await self.module.forward(self.batch)
        await self.module.backward()
        await self.module.update()

    async def fit(self) -> None:
        with self.module.nothing_under_way_after():
            await self.module.fit(self.iterator(3), num_epoch=1)

    async def fit_in_order(self) -> None:
        with self.module.nothing_under_way_after():
            await self.module.fit(self.iterator(2), num_epoch=1, in_flight=1)

    async def fit_accumulating(self) -> None:
        """The mean of two equal batches, and then of one."""
        with self.module.nothing_under_way_after():
            await self.module.fit(self.iterator(3), num_epoch=1, accumulate=2)


@pytest.mark.parametrize("inline", ["0", "1"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    "call",
    [
        Trained.step,
        Trained.manual,
        Trained.fit,
        Trained.fit_in_order,
        Trained.fit_accumulating,
    ],
)
async def test_training_stands_at_a_step_boundary(
    call: Callable[[Trained], Awaitable[None]],
    where: str,
    place: GatePlace,
    inline: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASYNCMOD_INLINE", inline)
    async with mx.open_runtime() as runtime:
        # Running statistics commit with a step, but with a bare backward and each of
        # several batches as well, and the end of an epoch averages those of several
        # devices.
        more = (Trained.manual, Trained.fit_accumulating)
        alone = len(WHERE[where]) == 1 and call not in more
        trained = Trained(where, batch_norm=alone)
        await trained.prepare(150)
        steps = await cancel_at_every_step(
            lambda: call(trained), trained.check, runtime=runtime, place=place
        )
        assert steps >= 1
        before = trained.count
        await trained.step()
        assert trained.count == before + 1
        await trained.check(True)


@pytest.mark.parametrize("inline", ["0", "1"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", ["score", "predict", "iter_predict", "get_params"])
async def test_reading_disturbs_nothing(
    name: str,
    where: str,
    place: GatePlace,
    inline: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASYNCMOD_INLINE", inline)
    async with mx.open_runtime() as runtime:
        trained = Trained(where)
        await trained.prepare(3)
        module = trained.module
        source = NDArrayIter(*rows(20), batch_size=8)
        results: list[Any] = []

        async def call() -> None:
            results.clear()
            with module.nothing_under_way_after():
                await read()

        async def read() -> None:
            if name == "score":
                results.append(await module.score(source, ["acc", "ce"]))
            elif name == "predict":
                results.append(await module.predict(source))
            elif name == "get_params":
                results.append((await module.get_params())[0]["fc1_weight"])
            else:
                async for outputs, nbatch, _ in module.iter_predict(source):
                    results.append((nbatch, outputs[0].sum()))

        await call()
        whole = list(results)
        # A pair of another task is under way, and its backward comes afterwards.
        await module.forward(trained.batch)
        [before] = await module.get_outputs()

        async def check(finished: bool) -> None:
            assert same(await module.get_outputs(), [before])
            if finished:
                assert len(results) == len(whole)
                assert all(np.all(a == b) for a, b in zip(results, whole, strict=True))

        steps = await cancel_at_every_step(call, check, runtime=runtime, place=place)
        assert steps >= 1
        await module.backward()
        await module.update()
        await trained.check(True)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["cpu", "references"])
async def test_a_cancelled_bind_leaves_the_module_unbound(
    where: str, place: GatePlace
) -> None:
    async with mx.open_runtime() as runtime:
        modules: list[mx.Module] = []

        async def call() -> None:
            modules.append(mx.Module(mlp(), context=WHERE[where]))
            await modules[-1].bind([("data", (8, 5))], [("softmax_label", (8,))])

        async def check(finished: bool) -> None:
            while modules:
                module = modules.pop()
                assert module.binded or not finished
                if not module.binded:
                    with pytest.raises(AssertionError):
                        await module.get_outputs()
                    await module.bind([("data", (8, 5))], [("softmax_label", (8,))])
                await module.init_params()
                await module.forward(batch())
                await module.aclose()

        steps = await cancel_at_every_step(call, check, runtime=runtime, place=place)
        assert steps > 3


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["cpu", "references"])
async def test_a_cancelled_rebind_keeps_what_was_learnt(
    where: str, place: GatePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ExecutorGroup] = []
    create = ExecutorGroup.create

    async def note(*arguments: Any) -> ExecutorGroup:
        made.append(await create(*arguments))
        return made[-1]

    monkeypatch.setattr(ExecutorGroup, "create", note)
    async with mx.open_runtime() as runtime:
        trained = Trained(where)
        await trained.prepare(4)
        await trained.step()
        await trained.step()
        module = trained.module
        other = [("data", (4, 5))], [("softmax_label", (4,))]

        async def call() -> None:
            await module.bind(*other, force_rebind=True)

        async def check(finished: bool) -> None:
            assert module.binded
            assert module.data_shapes[0].shape[0] == (4 if finished else 8)
            used = module.core.need_executors("test").first.group
            assert [g for g in made if not g._calls.closed] == [used]
            await trained.check(True)
            with trio.CancelScope(shield=True):
                await module.bind(
                    [("data", (8, 5))], [("softmax_label", (8,))], force_rebind=True
                )

        steps = await cancel_at_every_step(call, check, runtime=runtime, place=place)
        assert steps > 3
        await trained.step()
        await trained.check(True)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["cpu", "references"])
async def test_a_cancelled_reshape_changes_nothing(
    where: str, place: GatePlace
) -> None:
    """A forward of a new batch size is either done, or as if it had not been asked."""
    async with mx.open_runtime() as runtime:
        trained = Trained(where)
        await trained.prepare(2)
        module = trained.module
        await module.forward(trained.batch)
        outputs = await module.get_outputs()
        size = 8

        async def call() -> None:
            nonlocal size
            size += 2
            await module.forward(batch(size), is_train=False)

        async def check(finished: bool) -> None:
            if finished:
                assert module.data_shapes[0].shape == (size, 5)
                assert (await module.get_outputs())[0].shape == (size, 3)
                await module.forward(trained.batch)
            assert module.data_shapes[0].shape == (8, 5)
            assert same(await module.get_outputs(), outputs)

        steps = await cancel_at_every_step(call, check, runtime=runtime, place=place)
        assert steps > 3
        await trained.check(True)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["cpu", "references"])
@pytest.mark.parametrize("name", ["init_params", "set_params", "init_optimizer"])
async def test_a_cancelled_setting_is_whole_or_not(
    name: str, where: str, place: GatePlace
) -> None:
    async with mx.open_runtime() as runtime:
        module = await ready(mx.Module(mlp(), context=WHERE[where]), **SETTINGS)
        turn = 0

        async def call() -> None:
            nonlocal turn
            turn += 1
            if name == "init_params":
                await module.init_params(mx.init.Constant(turn), force_init=True)
            elif name == "set_params":
                await module.set_params(values(mlp(), seed=turn), {})
            else:
                settings = {"learning_rate": float(turn), "momentum": 0.9}
                await module.init_optimizer(optimizer_params=settings, force_init=True)

        before: Any = None

        async def look() -> Any:
            if name == "init_optimizer":
                assert module.optimizer is not None
                return {"lr": module.optimizer.lr}
            return (await module.get_params())[0]

        async def check(finished: bool) -> None:
            nonlocal before
            after = await look()
            if finished:
                before = after
                return
            # It may have run to its end although it was cancelled.
            if not same(after, before):
                with trio.CancelScope(shield=True):
                    nonlocal turn
                    turn -= 1
                    await call()
                assert same(after, await look())
                before = after

        before = await look()
        steps = await cancel_at_every_step(call, check, runtime=runtime, place=place)
        assert steps >= 1
        await module.step(batch())


async def test_a_deadline_stops_fit_between_steps() -> None:
    """What users write: a deadline around fit; the module goes on afterwards."""
    async with mx.open_runtime():
        trained = Trained("reference")
        await trained.prepare(60)
        seen = 0

        def stop(param: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == 5:
                scope.cancel()

        with trio.CancelScope() as scope:
            await trained.module.fit(
                trained.iterator(10), num_epoch=5, batch_end_callback=stop
            )
        assert scope.cancelled_caught
        assert trained.count < 10
        await trained.check(True)
        again = await trained.module.fit(trained.iterator(2), num_epoch=1)
        assert again.epochs[0]["batches"] == 2
        await trained.check(True)


async def test_a_cancelled_module_scope_closes_it() -> None:
    async def use(module: mx.Module) -> None:
        async with module:
            await ready(module, **SETTINGS)
            while True:
                await module.step(DataBatch(*[[a] for a in rows(8)]))

    module = mx.Module(mlp(), context=mx.reference(0))
    with trio.move_on_after(0.05) as scope:
        await use(module)
    assert scope.cancelled_caught
    assert not module.binded
