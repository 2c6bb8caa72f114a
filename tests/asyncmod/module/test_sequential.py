"""SequentialModule: a chain of modules computes and learns as one net."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import asyncmod as mx
from asyncmod.io import DataBatch, NDArrayIter
from tests.asyncmod.module.nets import (
    CLASSES,
    FEATURES,
    Array,
    batch,
    mlp,
    ready,
    rows,
    same,
    values,
)
from tests.harness.cancellation import PLACES, GatePlace, cancel_at_every_step

SETTINGS = {"learning_rate": 0.1, "momentum": 0.9}
SHAPES = [("data", (8, FEATURES))], [("softmax_label", (8,))]
WHERE = {
    "one device": ([mx.cpu(0)], [mx.cpu(0)]),
    "two devices": ([mx.cpu(0)], [mx.cpu(1)]),
    "one and two": ([mx.reference(0)], [mx.reference(1), mx.reference(2)]),
    "simulated": ([mx.Context("simulated", 1)], [mx.reference(0)]),
}


def lower(name: str = "fc1") -> mx.symbol.Symbol:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=7, name=name)
    return mx.sym.Activation(net, act_type="relu", name="relu1")


def upper(name: str = "fc2", data: str = "data") -> mx.symbol.Symbol:
    net = mx.sym.Variable(data)
    net = mx.sym.FullyConnected(net, num_hidden=CLASSES, name=name)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def chain(where: str = "one device") -> mx.SequentialModule:
    """The net of `mlp`, cut in two."""
    first, second = WHERE[where]
    sequence = mx.SequentialModule()
    sequence.add(mx.Module(lower(), label_names=None, context=first))
    return sequence.add(
        mx.Module(upper(), context=second), take_labels=True, auto_wiring=True
    )


async def prepared(sequence: mx.SequentialModule) -> mx.SequentialModule:
    await sequence.bind(*SHAPES)
    await sequence.init_params(arg_params=values(mlp()))
    await sequence.init_optimizer(optimizer_params=SETTINGS)
    return sequence


async def whole(steps: int = 0) -> tuple[dict[str, Array], list[Array]]:
    """Parameters and outputs of the uncut net after some steps."""
    async with mx.Module(mlp()) as module:
        await ready(module, **SETTINGS)
        outputs: list[Array] = []
        for seed in range(steps):
            await module.step(batch(8, seed))
            outputs += await module.get_outputs()
        return (await module.get_params())[0], outputs


def close(left: dict[str, Array], right: dict[str, Array]) -> None:
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_allclose(array, right[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("where", WHERE)
async def test_a_chain_learns_as_the_uncut_net(where: str) -> None:
    expected, outputs = await whole(4)
    async with chain(where) as sequence:
        await prepared(sequence)
        for seed in range(4):
            await sequence.forward(batch(8, seed), is_train=True)
            [output] = await sequence.get_outputs()
            np.testing.assert_allclose(output, outputs[seed], rtol=1e-5, atol=1e-6)
            await sequence.backward()
            await sequence.update()
        close((await sequence.get_params())[0], expected)


async def test_what_it_is_made_of() -> None:
    sequence = chain()
    assert sequence.symbol is None
    assert sequence.data_names == ["data"]
    assert sequence.label_names == ["softmax_label"]
    assert sequence.output_names == ["softmax_output"]
    async with sequence:
        await prepared(sequence)
        assert sequence.data_shapes == SHAPES[0]
        assert sequence.label_shapes == SHAPES[1]
        assert sequence.output_shapes == [("softmax_output", (8, CLASSES))]
        assert sequence.for_training
        assert not sequence.inputs_need_grad
        arguments, auxiliaries = await sequence.get_params()
        assert same(arguments, values(mlp()))
        assert auxiliaries == {}
    empty = mx.SequentialModule()
    assert (empty.data_names, empty.label_names, empty.output_names) == ([], [], [])


async def test_input_gradients_are_those_of_the_uncut_net() -> None:
    async with chain() as sequence, mx.Module(mlp()) as module:
        await sequence.bind(*SHAPES, inputs_need_grad=True)
        await module.bind(*SHAPES, inputs_need_grad=True)
        assert sequence.inputs_need_grad
        for each in (sequence, module):
            await each.init_params(arg_params=values(mlp()))
            await each.forward_backward(batch())
        [got], [expected] = [
            await each.get_input_grads() for each in (sequence, module)
        ]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
        close(await sequence.get_grads(), await module.get_grads())


@pytest.mark.parametrize("by_name", [False, True])
async def test_gradients_add_up_until_they_are_zeroed(by_name: bool) -> None:
    requests = dict.fromkeys(values(mlp()), "add") if by_name else "add"
    async with chain() as sequence:
        await sequence.bind(*SHAPES, grad_req=requests)
        await sequence.init_params(arg_params=values(mlp()))
        await sequence.forward_backward(batch())
        once = await sequence.get_grads()
        await sequence.forward_backward(batch())
        close(await sequence.get_grads(), {n: 2 * v for n, v in once.items()})
        await sequence.zero_grad()
        await sequence.forward_backward(batch())
        close(await sequence.get_grads(), once)


async def test_other_batch_sizes_pass_through() -> None:
    async with chain() as sequence, mx.Module(mlp()) as module:
        await prepared(sequence)
        await ready(module, **SETTINGS)
        for count in (8, 3, 12, 8):
            await sequence.step(batch(count))
            await module.step(batch(count))
        close((await sequence.get_params())[0], (await module.get_params())[0])


async def test_names_that_match_need_no_wiring() -> None:
    sequence = mx.SequentialModule().add(mx.Module(lower(), label_names=None))
    second = mx.Module(upper(data="relu1_output"), data_names=["relu1_output"])
    sequence.add(second, take_labels=True)
    async with sequence:
        await prepared(sequence)
        await sequence.step(batch())
        close((await sequence.get_params())[0], (await whole(1))[0])


async def test_errors_of_add() -> None:
    sequence = mx.SequentialModule()
    with pytest.raises(AssertionError, match=r'Unknown meta "foo", a typo\?'):
        sequence.add(mx.Module(lower(), label_names=None), foo=True)
    with pytest.raises(TypeError, match="Symbol"):
        sequence.add(lower())  # type: ignore[arg-type]
    module = mx.Module(lower(), label_names=None)
    assert sequence.add(module) is sequence
    with pytest.raises(ValueError, match="in the sequence already"):
        sequence.add(module)
    with pytest.raises(ValueError, match="in the sequence already"):
        sequence.add(sequence)


async def test_adding_resets_what_was_done() -> None:
    async with mx.SequentialModule() as sequence:
        sequence.add(mx.Module(lower(), label_names=None))
        await sequence.bind(SHAPES[0])
        await sequence.init_params()
        before, _ = await sequence.get_params()
        sequence.add(mx.Module(upper()), take_labels=True, auto_wiring=True)
        assert not sequence.binded
        assert not sequence.params_initialized
        with pytest.raises(AssertionError, match="bound"):
            await sequence.forward(batch())
        await sequence.bind(*SHAPES)
        with pytest.warns(UserWarning, match="already initialized"):
            await sequence.init_params()
        after, _ = await sequence.get_params()
        assert same({name: after[name] for name in before}, before)
        await sequence.forward(batch(), is_train=False)


async def test_errors_of_bind() -> None:
    async with mx.SequentialModule() as sequence:
        with pytest.raises(AssertionError, match="empty SequentialModule"):
            await sequence.bind(*SHAPES)
        sequence.add(mx.Module(lower(), label_names=None))
        sequence.add(mx.Module(upper()), take_labels=True)
        with pytest.raises(ValueError, match=r"'relu1_output'.*auto_wiring=True"):
            await sequence.bind(*SHAPES)
        assert not sequence.binded
        with pytest.raises(AssertionError, match="shared_module"):
            await sequence.bind(*SHAPES, shared_module=sequence)
        with pytest.raises(ValueError, match="`grad_req` names `zz`"):
            await sequence.bind(*SHAPES, grad_req={"zz": "add"})
        with pytest.raises(AssertionError, match="for_training"):
            await sequence.bind(*SHAPES, for_training=False, inputs_need_grad=True)
    async with chain() as sequence:
        with pytest.raises(AssertionError, match="bound"):
            await sequence.get_outputs()
        await sequence.bind(*SHAPES)
        with pytest.raises(AssertionError, match="parameters"):
            await sequence.forward(batch())
        await sequence.init_params()
        with pytest.raises(AssertionError, match="optimizer"):
            await sequence.update()
        with pytest.raises(AssertionError, match="inputs_need_grad=True"):
            await sequence.get_input_grads()
    with pytest.raises(RuntimeError, match="closed"):
        await sequence.forward(batch())


async def test_duplicated_and_extra_parameters() -> None:
    async with mx.SequentialModule() as sequence:
        sequence.add(mx.Module(lower(), label_names=None))
        sequence.add(mx.Module(upper("fc1")), take_labels=True, auto_wiring=True)
        await sequence.bind(*SHAPES)
        message = 'name "fc1_weight" in layer 1 .Module. is already used in layer 0'
        with pytest.raises(AssertionError, match=message):
            await sequence.init_params()
        assert not sequence.params_initialized
    async with chain() as sequence:
        await prepared(sequence)
        before = await sequence.get_params()
        changed = {name: value + 1 for name, value in values(mlp()).items()}
        with pytest.raises(ValueError, match='"zz"'):
            await sequence.set_params({**changed, "zz": np.zeros(1)}, {})
        del changed["fc2_bias"]
        with pytest.raises(RuntimeError, match="fc2_bias is not presented"):
            await sequence.set_params(changed, {})
        assert same(await sequence.get_params(), before)
        await sequence.set_params(
            {**changed, "zz": np.zeros(1)}, {}, allow_missing=True, allow_extra=True
        )
        after, _ = await sequence.get_params()
        assert same(after, {**changed, "fc2_bias": before[0]["fc2_bias"]})


async def test_labels_go_to_those_that_take_them() -> None:
    """Two losses: the metric counts each module that takes labels."""

    def middle() -> mx.symbol.Symbol:
        net = mx.sym.FullyConnected(
            mx.sym.Variable("data"), num_hidden=CLASSES, name="fc2"
        )
        return mx.sym.SoftmaxOutput(net, name="softmax")

    def last() -> mx.symbol.Symbol:
        net = mx.sym.FullyConnected(
            mx.sym.Variable("data"), num_hidden=CLASSES, name="fc3"
        )
        return mx.sym.SoftmaxOutput(net, name="softmax")

    async with mx.SequentialModule() as sequence:
        sequence.add(mx.Module(lower(), label_names=None))
        sequence.add(mx.Module(middle()), take_labels=True, auto_wiring=True)
        sequence.add(mx.Module(last()), take_labels=True, auto_wiring=True)
        await sequence.bind(*SHAPES)
        await sequence.init_params()
        metric = mx.metric.Accuracy()
        await sequence.forward(batch())
        await sequence.update_metric(metric, batch().label)
        assert metric.num_inst == 16
        source = NDArrayIter(*rows(12), batch_size=8)
        await sequence.score(source, metric)
        assert metric.num_inst == 24


class Spy(mx.PythonModule):
    """Passes its data on and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(["data"], ["softmax_label"], ["out"])
        self.given: list[Any] = []

    def _compute_output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        return [("out", self._data_shapes[0].shape)]

    async def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        self.given.append(data_batch)

    async def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        return list(self.given[-1].data)


async def test_labels_are_kept_from_those_that_do_not_take_them() -> None:
    first, second = Spy(), Spy()
    async with mx.SequentialModule() as sequence:
        sequence.add(first).add(second, take_labels=True, auto_wiring=True)
        await sequence.bind(*SHAPES)
        await sequence.init_params()
        given = batch()
        given.pad, given.bucket_key = 2, "key"
        await sequence.forward(given)
        assert first.label_shapes == []
        assert second.label_shapes == SHAPES[1]
        assert not first.given[0].label
        assert same(second.given[0].label, given.label)
        for seen in (first.given[0], second.given[0]):
            assert same(seen.data, given.data)
            assert (seen.pad, seen.bucket_key) == (2, "key")


@pytest.mark.parametrize("in_flight", [1, 2])
async def test_fit_score_and_predict(in_flight: int) -> None:
    source = NDArrayIter(*rows(20), batch_size=8)
    arguments: dict[str, Any] = {
        "num_epoch": 2,
        "eval_metric": ["acc", "ce"],
        "eval_data": NDArrayIter(*rows(20), batch_size=8),
        "arg_params": values(mlp()),
        "optimizer_params": SETTINGS,
        "in_flight": in_flight,
    }
    seen: list[list[Any]] = []
    results = []
    for module in (chain(), mx.Module(mlp())):
        seen.append([])
        async with module:
            await source.reset()
            history = await module.fit(
                source,
                batch_end_callback=lambda p: seen[-1].append(
                    (p.epoch, p.nbatch, *[v for _, v in p.eval_metric.get_name_value()])
                ),
                **arguments,
            )
            scored = await module.score(source, ["acc", "ce"])
            predicted = await module.predict(source)
            per_batch = [o[0].shape async for o, _, _ in module.iter_predict(source)]
            numbers = history.to_dict()
            results.append(([v for _, v in scored], predicted, numbers["samples"]))
            assert per_batch == [(8, 3), (8, 3), (4, 3)]
    np.testing.assert_allclose(*seen, rtol=1e-5)
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)
    assert results[0][2] == results[1][2] == [20, 20]


async def test_predict_does_not_disturb_a_pair() -> None:
    async with chain() as sequence:
        await prepared(sequence)
        await sequence.forward(batch())
        await sequence.predict(batch(8, 5))
        await sequence.backward()
        await sequence.update()
        close((await sequence.get_params())[0], (await whole(1))[0])


async def test_children_need_no_scope_of_their_own_and_are_closed() -> None:
    async with mx.open_runtime():
        sequence = chain()
        await prepared(sequence)
        await sequence.aclose()
        for child in sequence._children:
            with pytest.raises(RuntimeError, match="closed"):
                await child.module.forward(batch())


async def test_sequences_nest() -> None:
    inner = mx.SequentialModule().add(mx.Module(lower(), label_names=None))
    outer = mx.SequentialModule().add(inner)
    outer.add(mx.Module(upper()), take_labels=True, auto_wiring=True)
    async with outer:
        await prepared(outer)
        await outer.step(batch())
        close((await outer.get_params())[0], (await whole(1))[0])


async def test_a_bucketing_module_may_stand_in_it() -> None:
    def sym_gen(key: Any) -> Any:
        return upper(), ["data"], ["softmax_label"]

    sequence = mx.SequentialModule().add(mx.Module(lower(), label_names=None))
    sequence.add(mx.BucketingModule(sym_gen, "a"), take_labels=True, auto_wiring=True)
    async with sequence:
        await prepared(sequence)
        given = batch()
        given.bucket_key = "b"
        await sequence.step(given)
        close((await sequence.get_params())[0], (await whole(1))[0])


# Tasks and cancellation


class Slow(mx.Module):
    """Lets others run before it predicts."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        inside: Any = self.inside
        dispatch_predict = inside.dispatch_predict

        async def slowly(batch: Any) -> Any:
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            return await dispatch_predict(batch)

        inside.dispatch_predict = slowly


async def test_steps_and_predictions_of_several_tasks_do_not_mix() -> None:
    sequence = mx.SequentialModule().add(mx.Module(lower(), label_names=None))
    async with sequence.add(Slow(upper()), take_labels=True, auto_wiring=True):
        await prepared(sequence)
        predictions = []
        for _ in range(6):
            predictions.append(await sequence.predict(batch(8, 5)))
            await sequence.step(batch())
        expected, _ = await sequence.get_params()
        predictions.append(await sequence.predict(batch(8, 5)))
        await sequence.set_params(values(mlp()), {})
        await sequence.init_optimizer(optimizer_params=SETTINGS, force_init=True)

        async def train() -> None:
            for _ in range(3):
                await sequence.step(batch())

        async def ask() -> None:
            for _ in range(6):
                got = await sequence.predict(batch(8, 5))
                assert sum(same(got, other) for other in predictions) == 1

        async with trio.open_nursery() as nursery:
            for call in (train, train, ask, ask):
                nursery.start_soon(call)
        assert same((await sequence.get_params())[0], expected)


async def state_of(sequence: mx.SequentialModule) -> dict[str, Array]:
    """Parameters and momentum of all modules."""
    state, _ = await sequence.get_params()
    for child in sequence._children:
        assert isinstance(child.module, mx.Module)
        optimization = child.module.core.optimization
        assert optimization is not None
        group = child.module.core.need_executors("test").first.group
        states = await group.read_updater_states(optimization.updater)
        state |= {f"m {n}": v for n, v in states["momentum"].items()}  # type: ignore[arg-type]
    return dict(state)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["two devices", "one and two"])
@pytest.mark.parametrize("what", ["step", "update", "fit"])
async def test_cancelled_training_stands_at_a_step_boundary(
    what: str, where: str, place: GatePlace
) -> None:
    steps = 2 if what == "fit" else 1
    data, label = batch().data[0], batch().label[0]  # type: ignore[index]
    async with mx.open_runtime() as runtime:
        sequence = chain(where)
        await prepared(sequence)
        expected = [await state_of(sequence)]
        for _ in range(steps):
            await sequence.step(batch())
            expected.append(await state_of(sequence))
        counts = [0] * (steps + 1)

        async def start() -> None:
            await sequence.set_params(values(mlp()), {})
            await sequence.init_optimizer(optimizer_params=SETTINGS, force_init=True)
            await sequence.forward_backward(batch())

        async def call() -> None:
            if what == "step":
                await sequence.step(batch())
            elif what == "update":
                await sequence.update()
            else:
                source = NDArrayIter(np.tile(data, (2, 1)), np.tile(label, 2), 8)
                await sequence.fit(source, num_epoch=1)

        async def check(finished: bool) -> None:
            state = await state_of(sequence)
            found = [k for k, other in enumerate(expected) if same(state, other)]
            assert len(found) == 1, "a mixture of two steps"
            assert found == [steps] or not finished
            counts[found[0]] += 1
            await start()

        await start()
        assert await cancel_at_every_step(call, check, runtime=runtime, place=place) > 2
        assert counts[0] > 0
        assert counts[-1] > 0


@pytest.mark.parametrize("place", PLACES)
async def test_cancelled_set_params_sets_all_or_none(place: GatePlace) -> None:
    async with mx.open_runtime() as runtime:
        sequence = await prepared(chain("two devices"))
        old = values(mlp())
        new = {name: value + 1 for name, value in old.items()}

        async def call() -> None:
            await sequence.set_params(new, {})

        async def check(finished: bool) -> None:
            got, _ = await sequence.get_params()
            assert same(got, new) or (not finished and same(got, old))
            await sequence.set_params(old, {})

        assert await cancel_at_every_step(call, check, runtime=runtime, place=place) > 2


@pytest.mark.parametrize("place", PLACES)
async def test_a_cancelled_bind_leaves_the_sequence_unbound(place: GatePlace) -> None:
    async with mx.open_runtime() as runtime:
        sequence = await prepared(chain("two devices"))

        async def call() -> None:
            await sequence.bind([("data", (4, FEATURES))], force_rebind=True)

        async def check(finished: bool) -> None:
            if finished:
                assert sequence.data_shapes == [("data", (4, FEATURES))]
            elif sequence.binded:
                assert sequence.data_shapes == SHAPES[0], "cancelled before it began"
            else:
                with pytest.raises(AssertionError, match="bound"):
                    await sequence.forward(batch())
            await sequence.bind(*SHAPES, force_rebind=True)
            assert same((await sequence.get_params())[0], values(mlp()))

        assert await cancel_at_every_step(call, check, runtime=runtime, place=place) > 3


async def test_a_gradient_function_that_hangs_can_be_cancelled() -> None:
    async def hanging(scores: Array, labels: Array) -> Array:
        await trio.sleep_forever()
        return scores

    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")
    sequence = mx.SequentialModule().add(mx.Module(net, label_names=None))
    sequence.add(
        mx.PythonLossModule(grad_func=hanging), take_labels=True, auto_wiring=True
    )
    async with sequence:
        await sequence.bind(*SHAPES)
        await sequence.init_params()
        await sequence.init_optimizer()
        before = await sequence.get_params()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sequence.step, DataBatch(batch().data, batch().label))
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert same(await sequence.get_params(), before)


READERS = {
    "score": lambda sequence: sequence.score(NDArrayIter(*rows(20), 8), "acc"),
    "predict": lambda sequence: sequence.predict(NDArrayIter(*rows(20), 8)),
    "get_params": lambda sequence: sequence.get_params(),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", READERS)
async def test_cancelled_reading_disturbs_nothing(name: str, place: GatePlace) -> None:
    expected, _ = await whole(1)
    async with mx.open_runtime() as runtime:
        sequence = await prepared(chain("two devices"))
        await sequence.forward(batch())
        [before] = await sequence.get_outputs()

        async def call() -> None:
            await READERS[name](sequence)

        async def check(finished: bool) -> None:
            assert same(await sequence.get_outputs(), [before])
            assert not sequence._chain.running.locked()

        assert await cancel_at_every_step(call, check, runtime=runtime, place=place) > 1
        await sequence.backward()
        await sequence.update()
        close((await sequence.get_params())[0], expected)
