"""BucketingModule: buckets share all that is learnt, whatever their order."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import asyncmod as mx
from asyncmod.io import DataBatch, DataDesc
from asyncmod.module.module_inside import ModuleInside
from tests.asyncmod.module.nets import CLASSES, Array, same
from tests.harness.cancellation import (
    PLACES,
    GatePlace,
    cancel_at_every_step,
    held_threads,
)

ROWS, FEATURES = 4, 3
SETTINGS = {"learning_rate": 0.5, "momentum": 0.9}
KEYS = [6, 2, 4, 2, 6, 4]
WHERE = {
    "cpu": [mx.cpu(0)],
    "references": [mx.reference(0), mx.reference(1)],
    "simulated": [mx.reference(0), mx.Context("simulated", 1)],
}


def net() -> mx.symbol.Symbol:
    """A class for each step of a sequence; the same symbol for every length."""
    data = mx.sym.Variable("data")
    steps = mx.sym.Reshape(data, shape=(-1, FEATURES))
    hidden = mx.sym.FullyConnected(steps, num_hidden=5, name="fc1")
    hidden = mx.sym.Activation(hidden, act_type="tanh")
    scores = mx.sym.FullyConnected(hidden, num_hidden=CLASSES, name="fc2")
    label = mx.sym.Reshape(mx.sym.Variable("softmax_label"), shape=(-1,))
    return mx.sym.SoftmaxOutput(scores, label, name="softmax")


def sym_gen(key: Any) -> tuple[mx.symbol.Symbol, list[str], list[str]]:
    return net(), ["data"], ["softmax_label"]


def shapes(length: int) -> tuple[list[DataDesc], list[DataDesc]]:
    data = DataDesc("data", (ROWS, length, FEATURES))
    return [data], [DataDesc("softmax_label", (ROWS, length))]


def batch(length: int, seed: int = 0, key: Any = None, pad: int = 0) -> DataBatch:
    random = np.random.default_rng(seed * 100 + length)
    data, label = shapes(length)
    return DataBatch(
        [random.normal(size=data[0].shape).astype(np.float32)],
        [random.integers(0, CLASSES, label[0].shape).astype(np.float32)],
        pad=pad,
        bucket_key=length if key is None else key,
        provide_data=data,
        provide_label=label,
    )


def first_values() -> dict[str, Array]:
    random = np.random.default_rng(7)
    sizes = {
        "fc1_weight": (5, FEATURES),
        "fc1_bias": (5,),
        "fc2_weight": (CLASSES, 5),
        "fc2_bias": (CLASSES,),
    }
    return {n: random.normal(size=s).astype(np.float32) / 2 for n, s in sizes.items()}


class Source:
    """Batches of several buckets, as an iterator."""

    batch_size = ROWS

    def __init__(self, batches: Sequence[DataBatch], default: int = 6) -> None:
        self.batches = list(batches)
        self.provide_data, self.provide_label = shapes(default)
        self._left: Iterator[DataBatch] = iter(self.batches)

    def __aiter__(self) -> AsyncIterator[DataBatch]:
        return self

    async def __anext__(self) -> DataBatch:
        for found in self._left:
            return found
        raise StopAsyncIteration

    def reset(self) -> None:
        self._left = iter(self.batches)


async def ready(
    module: Any, default: int = 6, optimizer: str = "sgd", **bind: Any
) -> Any:
    """Bind, set the same values, and install an optimizer."""
    await module.bind(*shapes(default), **bind)
    await module.init_params(arg_params=first_values(), aux_params={})
    settings = {"rescale_grad": 1 / ROWS, **SETTINGS}
    await module.init_optimizer(optimizer=optimizer, optimizer_params=settings)
    return module


async def trained_without_buckets(
    context: Any = None, keys: Sequence[int] = KEYS
) -> tuple[dict[str, Array], list[Array]]:
    """Parameters and outputs of one Module that sees the same batches.

    It can: this net is the same symbol for every length.
    """
    async with mx.Module(net(), context=context) as module:
        await ready(module)
        outputs = []
        for seed, length in enumerate(keys):
            await module.step(batch(length, seed))
            outputs += await module.get_outputs()
        return (await module.get_params())[0], outputs


@pytest.mark.parametrize("default", [2, 4, 6])
@pytest.mark.parametrize("where", WHERE)
async def test_buckets_learn_together_whatever_their_order(
    where: str, default: int
) -> None:
    expected, outputs = await trained_without_buckets(WHERE[where])
    async with mx.BucketingModule(sym_gen, default, context=WHERE[where]) as module:
        await ready(module, default)
        got = []
        for seed, length in enumerate(KEYS):
            await module.step(batch(length, seed))
            assert module.current_bucket_key == length
            assert module.data_shapes == shapes(length)[0]
            got += await module.get_outputs()
        assert same(got, outputs)
        assert same((await module.get_params())[0], expected)


async def test_forward_backward_update_is_a_step() -> None:
    expected, _ = await trained_without_buckets()
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        for seed, length in enumerate(KEYS):
            await module.forward_backward(batch(length, seed))
            await module.update()
        assert same((await module.get_params())[0], expected)


async def test_writing_in_one_bucket_shows_in_the_other() -> None:
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        await module.forward(batch(2), is_train=False)
        await module.switch_bucket(4, *shapes(4))
        await module.set_params({**first_values(), "fc2_bias": [9, 0, 0]}, {})
        await module.forward(batch(2), is_train=False)
        assert (await module.get_outputs())[0].argmax(axis=1).tolist() == [0] * 8


@pytest.mark.parametrize("key", [(3, "left"), "short", -7, frozenset({1}), None])
async def test_a_key_is_anything_that_can_be_hashed(key: Any) -> None:
    made = []

    def note(key: Any) -> Any:
        made.append(key)
        return sym_gen(key)

    async with mx.BucketingModule(note, 6) as module:
        await ready(module)
        wanted = batch(2)
        wanted.bucket_key = key
        await module.forward(wanted)
        await module.forward(wanted)
        assert module.current_bucket_key == key
        assert made == [6, key]


async def test_keys_that_cannot_be_hashed_and_batches_without_key() -> None:
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        with pytest.raises(TypeError, match=r"key \[1\] is a list.*cannot be hashed"):
            await module.forward(batch(2, key=[1]))

        class Bare:
            data = batch(2).data

        with pytest.raises(ValueError, match="needs `bucket_key`, and this Bare"):
            await module.forward(Bare())
        assert module.current_bucket_key == 6


async def test_shapes_of_a_new_bucket_follow_from_the_arrays() -> None:
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        bare = batch(2)
        bare.provide_data = bare.provide_label = None
        await module.forward_backward(bare)
        assert module.data_shapes == shapes(2)[0]
        assert module.label_shapes == shapes(2)[1]


def inferring(key: int) -> Any:
    """The shape of the labels follows from that of the data."""
    scores = mx.sym.FullyConnected(
        mx.sym.Variable("data"), num_hidden=CLASSES, flatten=False, name="fc"
    )
    scores = mx.sym.transpose(scores, axes=(0, 2, 1))
    symbol = mx.sym.SoftmaxOutput(scores, multi_output=True, name="softmax")
    return symbol, ["data"], ["softmax_label"]


@pytest.mark.parametrize("call", ["forward", "predict", "switch_bucket"])
async def test_a_bucket_that_came_without_labels_can_be_trained_later(
    call: str,
) -> None:
    bare = DataBatch(batch(2).data, bucket_key=2, provide_data=batch(2).provide_data)
    learnt = []
    for disturbed in (True, False):
        async with mx.BucketingModule(inferring, 6) as module:
            await module.bind(*shapes(6))
            await module.init_params(mx.init.One())
            await module.init_optimizer()
            if disturbed:
                given = {"switch_bucket": [2, shapes(2)[0]], "forward": [bare, False]}
                await getattr(module, call)(*given.get(call, [bare]))
            await module.step(batch(2))
            learnt.append((await module.get_params())[0])
    assert same(*learnt)


async def test_labels_that_do_not_follow_from_the_data_must_be_described() -> None:
    bare = DataBatch(batch(2).data, bucket_key=2, provide_data=batch(2).provide_data)
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        with pytest.raises(ValueError, match="describe it in `label_shapes`"):
            await module.predict(bare)


async def test_automatic_names_start_anew_in_each_bucket() -> None:
    """Upstream test_module_switch_bucket, its first half."""

    def unnamed(key: int) -> Any:
        steps = mx.sym.Reshape(mx.sym.Variable("data"), shape=(-1, FEATURES))
        scores = mx.sym.FullyConnected(steps, num_hidden=CLASSES)
        label = mx.sym.Reshape(mx.sym.Variable("softmax_label"), shape=(-1,))
        return (
            mx.sym.SoftmaxOutput(scores, label, name="softmax"),
            ["data"],
            ["softmax_label"],
        )

    async with mx.BucketingModule(unnamed, 6) as module:
        await module.bind(*shapes(6))
        await module.init_params()
        for length in (2, 4):
            await module.forward(batch(length))
            arguments = module.symbol.list_arguments()
            assert "fullyconnected0_weight" in arguments


@pytest.mark.parametrize(("request_", "factor"), [("write", 1), ("add", 4)])
async def test_requests_are_carried_to_other_buckets(
    request_: str, factor: int
) -> None:
    """Upstream test_bucket_module_grad_req: `add` sums across buckets."""
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module, grad_req=request_)
        same_rows = batch(2)
        for key in ("a", "b", "a", "b"):
            same_rows.bucket_key = key
            await module.forward_backward(same_rows)
            if key == "a" and request_ == "write":
                once = await module.get_grads()
        got = await module.get_grads()
        if request_ == "add":
            await module.zero_grad()
            await module.forward_backward(same_rows)
            once = await module.get_grads()
        for name, gradient in once.items():
            np.testing.assert_allclose(got[name], gradient * factor, rtol=1e-5)


async def test_switch_prepare_and_predict_leave_a_pair_alone() -> None:
    expected, _ = await trained_without_buckets(keys=[6])
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        await module.forward(batch(6))
        [before] = await module.get_outputs()
        await module.prepare(batch(2))
        await module.predict(batch(4))
        await module.score(Source([batch(2), batch(4)]), "acc")
        assert module.current_bucket_key == 6
        assert same(await module.get_outputs(), [before])
        await module.backward()
        await module.update()
        assert same((await module.get_params())[0], expected)


async def test_symbols_of_later_buckets_are_made_off_the_loop() -> None:
    where = []

    def note(key: Any) -> Any:
        where.append((key, threading.current_thread() is threading.main_thread()))
        return sym_gen(key)

    async with mx.BucketingModule(note, 6) as module:
        await ready(module)
        await module.step(batch(2))
    assert where == [(6, True), (2, False)]


async def test_switch_bucket_makes_the_bucket_current() -> None:
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        await module.switch_bucket(2, *shapes(2))
        assert module.current_bucket_key == 2
        assert module.output_shapes == [("softmax_output", (ROWS * 2, CLASSES))]
        with pytest.raises(AssertionError, match="needs a forward"):
            await module.get_outputs()
        await module.switch_bucket(6, None)
        assert module.data_shapes == shapes(6)[0]


# What goes wrong


async def test_constructor_errors() -> None:
    with pytest.raises(AssertionError, match="default_bucket_key"):
        mx.BucketingModule(sym_gen)
    with pytest.raises(TypeError, match="sym_gen"):
        mx.BucketingModule("net", 6)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must return \(symbol, data_names"):
        mx.BucketingModule(lambda key: net(), 6)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="max_buckets"):
        mx.BucketingModule(sym_gen, 6, max_buckets=2)

    def failing(key: Any) -> Any:
        raise KeyError(key)

    with pytest.raises(KeyError) as raised:
        mx.BucketingModule(failing, 6)
    assert raised.value.__notes__ == ["raised in `sym_gen` for the bucket key 6"]


async def test_calls_before_their_time() -> None:
    async with mx.BucketingModule(sym_gen, 6) as module:
        with pytest.raises(AssertionError, match="bound"):
            await module.switch_bucket(2, *shapes(2))
        with pytest.raises(AssertionError, match="bound"):
            await module.forward(batch(6))
        with pytest.raises(AssertionError, match="bound"):
            module.bucket_report()
        with pytest.raises(AssertionError, match="shared_module"):
            await module.bind(*shapes(6), shared_module=module)
        await module.bind(*shapes(6))
        with pytest.raises(AssertionError, match="parameters"):
            await module.forward(batch(6))
        await module.init_params()
        with pytest.raises(AssertionError, match="optimizer"):
            await module.step(batch(2))
    with pytest.raises(RuntimeError, match="closed"):
        await module.forward(batch(6))


def deeper(key: int) -> Any:
    """Bucket 2 has one layer more."""
    symbol = net()
    if key == 2:
        data = mx.sym.Variable("data")
        steps = mx.sym.Reshape(data, shape=(-1, FEATURES))
        scores = mx.sym.FullyConnected(steps, num_hidden=CLASSES, name="extra")
        label = mx.sym.Reshape(mx.sym.Variable("softmax_label"), shape=(-1,))
        symbol = mx.sym.SoftmaxOutput(scores, label, name="softmax")
    if key == 4:
        data = mx.sym.Variable("data")
        steps = mx.sym.Reshape(data, shape=(-1, FEATURES))
        scores = mx.sym.FullyConnected(steps, num_hidden=CLASSES, name="fc1")
        label = mx.sym.Reshape(mx.sym.Variable("softmax_label"), shape=(-1,))
        symbol = mx.sym.SoftmaxOutput(scores, label, name="softmax")
    return symbol, ["data"], ["softmax_label"]


async def test_a_bucket_adds_no_parameters() -> None:
    async with mx.BucketingModule(deeper, 6) as module:
        await ready(module)
        with pytest.raises(RuntimeError, match="bucket 2 has the parameter `extra_wei"):
            await module.forward(batch(2))
        with pytest.raises(ValueError, match=r"`fc1_weight` is \(3, 3\)"):
            await module.forward(batch(4))
        assert module.current_bucket_key == 6
        assert [bucket.key for bucket in module.bucket_report()] == [6]
        await module.step(batch(6))


# Buckets with fewer parameters than the default one


def gated(key: Any) -> Any:
    """The bucket "plain" lacks the gate that the others have."""
    data = mx.sym.Variable("data")
    steps = mx.sym.Reshape(data, shape=(-1, FEATURES))
    hidden = mx.sym.FullyConnected(steps, num_hidden=5, name="fc1")
    if key != "plain":
        gate = mx.sym.FullyConnected(steps, num_hidden=5, name="gate")
        hidden = hidden * mx.sym.Activation(gate, act_type="sigmoid")
    scores = mx.sym.FullyConnected(hidden, num_hidden=CLASSES, name="fc2")
    label = mx.sym.Reshape(mx.sym.Variable("softmax_label"), shape=(-1,))
    symbol = mx.sym.SoftmaxOutput(scores, label, name="softmax")
    return symbol, ["data"], ["softmax_label"]


def gated_values() -> dict[str, Array]:
    gate = {"gate_weight": np.full((5, FEATURES), 0.3), "gate_bias": np.full(5, 0.1)}
    return {**first_values(), **{n: v.astype(np.float32) for n, v in gate.items()}}


class OwnOptimizer(mx.optimizer.Optimizer):
    """Without a rule: a function on the host. Its state counts the updates."""

    def create_state(self, index: Any, weight: Array) -> Any:
        return np.zeros(1, np.float32)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        self._update_count(index)
        state += 1
        weight -= self._get_lr(index) * grad * state * self.rescale_grad


OPTIMIZERS = {
    "sgd": lambda: mx.optimizer.create("sgd", learning_rate=0.3, momentum=0.9, wd=0.1),
    "adam": lambda: mx.optimizer.create("adam", learning_rate=0.1, wd=0.1),
    "own": lambda: OwnOptimizer(learning_rate=0.1),
}
GATED_KEYS = ["full", "plain", "plain", "full", "plain", "other", "full"]


@pytest.mark.filterwarnings("ignore:Optimizer created manually")
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("where", WHERE)
async def test_a_bucket_updates_only_the_parameters_that_it_has(
    where: str, name: str, whole: bool
) -> None:
    """The oracle is the optimizer itself, parameter by parameter."""
    oracle = OPTIMIZERS[name]()
    expected = gated_values()
    indexes = {n: i for i, n in enumerate(gated("full")[0].list_arguments()[1:-1])}
    oracle.idx2name = {i: n for n, i in indexes.items()}
    states = {n: oracle.create_state(indexes[n], v) for n, v in expected.items()}
    async with mx.BucketingModule(gated, "full", context=WHERE[where]) as module:
        await module.bind(*shapes(6))
        await module.init_params(arg_params=expected)
        await module.init_optimizer(optimizer=OPTIMIZERS[name]())
        for seed, key in enumerate(GATED_KEYS):
            given = batch(2, seed, key)
            if whole:
                await module.step(given)
            else:
                await module.forward_backward(given)
            gradients = await module.get_grads()
            assert ("gate_bias" in gradients) == (key != "plain")
            if not whole:
                await module.update()
            for n in sorted(gradients, key=indexes.__getitem__):
                oracle.update(indexes[n], expected[n], gradients[n], states[n])
            learnt, _ = await module.get_params()
            for n, value in expected.items():
                np.testing.assert_allclose(learnt[n], value, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", ["sgd", "adam"])
async def test_fit_over_buckets_with_fewer_parameters(name: str, where: str) -> None:
    batches = [batch(2, seed, key) for seed, key in enumerate(GATED_KEYS)]
    learnt = []
    for by_hand in (True, False):
        async with mx.BucketingModule(gated, "full", context=WHERE[where]) as module:
            await module.bind(*shapes(6))
            await module.init_params(arg_params=gated_values())
            await module.init_optimizer(optimizer=name)
            if by_hand:
                for given in batches * 2:
                    await module.step(given)
            else:
                await module.fit(Source(batches), num_epoch=2)
            learnt.append((await module.get_params())[0])
            await module.init_optimizer(optimizer=name, force_init=True)
            await module.step(batches[1])
            memory = module._default.core.need_executors("test").first.group._memory
            assert len(memory.updates) == 2, "the old ones were forgotten"
    assert same(*learnt)


@pytest.mark.parametrize("place", PLACES)
async def test_withdrawn_steps_are_not_counted_in_any_bucket(place: GatePlace) -> None:
    keys = ["full", "plain", "full"]
    async with mx.open_runtime() as runtime:
        module = mx.BucketingModule(gated, "full", context=[mx.cpu(0)])
        await module.bind(*shapes(6))
        await module.init_params(arg_params=gated_values())

        async def start() -> None:
            await module.set_params(gated_values(), {})
            await module.init_optimizer(
                optimizer="adam",
                optimizer_params={"learning_rate": 0.1},
                force_init=True,
            )

        batches = [batch(2, seed, key) for seed, key in enumerate(keys)]
        await start()
        expected = [(await module.get_params())[0]]
        for given in batches:
            await module.step(given)
            expected.append((await module.get_params())[0])
        await start()

        async def call() -> None:
            await module.fit(Source(batches), num_epoch=1)

        async def check(finished: bool) -> None:
            learnt, _ = await module.get_params()
            done = [k for k, values in enumerate(expected) if same(values, learnt)]
            assert len(done) == 1, "a mixture of two steps"
            # Going on gives what an undisturbed training gives: the counts are right.
            for given in batches[done[0] :]:
                await module.step(given)
            assert same((await module.get_params())[0], expected[-1])
            await start()

        assert await cancel_at_every_step(call, check, runtime=runtime, place=place) > 3


async def test_a_withdrawn_step_leaves_the_counts_of_later_ones_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The later step is one of another bucket, and was counted already."""
    monkeypatch.setenv("ASYNCMOD_INLINE", "0")
    learnt = []
    async with mx.open_runtime() as runtime:
        module = mx.BucketingModule(gated, "full", context=[mx.cpu(0)])
        await module.bind(*shapes(6))
        await module.init_params()
        for withdrawn in (False, True):
            await module.set_params(gated_values(), {})
            await module.init_optimizer(optimizer="adam", force_init=True)
            await module.step(batch(2, 0, "plain"))
            with held_threads(runtime, "queued"):
                async with trio.open_nursery() as nursery:
                    scope = trio.CancelScope()
                    if withdrawn:
                        first = batch(2, 1, "plain")
                        nursery.start_soon(_step_in, scope, module, first)
                        await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(module.step, batch(2, 2, "full"))
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            learnt.append((await module.get_params())[0])
    assert same(*learnt)


async def _step_in(
    scope: trio.CancelScope, module: mx.BucketingModule, given: DataBatch
) -> None:
    with scope:
        await module.step(given)


# How many buckets


async def test_live_buckets_are_bounded_and_come_back() -> None:
    lengths = [2, 3, 4, 5, 6, 2, 3, 6, 5, 2]
    expected, _ = await trained_without_buckets(keys=lengths)
    async with mx.BucketingModule(sym_gen, 6, max_buckets=3) as module:
        await ready(module)
        seen = []
        for seed, length in enumerate(lengths):
            await module.step(batch(length, seed))
            seen.append([bucket.key for bucket in module.bucket_report()])
        assert seen[:6] == [[6, 2], [6, 2, 3], [6, 3, 4], [6, 4, 5], [4, 5, 6]] + [
            [5, 6, 2]
        ]
        assert max(map(len, seen)) == 3
        assert same((await module.get_params())[0], expected)


async def test_report_tells_the_bytes_of_each_bucket() -> None:
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        await module.step(batch(2))
        await module.step(batch(4))
        default, two, four = module.bucket_report()
        assert (default.key, two.key, four.key) == (6, 2, 4)
        assert four.data_shapes == tuple(shapes(4)[0])
        # Data and labels of two steps in flight at least.
        assert two.nbytes > 2 * 4 * (ROWS * 2 * FEATURES + ROWS * 2)
        assert two.nbytes < four.nbytes < default.nbytes
        await module.predict(batch(2))
        assert module.bucket_report()[-1].nbytes > two.nbytes


async def test_fit_over_more_buckets_than_are_kept() -> None:
    lengths = [2, 3, 4, 5, 6, 7, 8]
    source = Source([batch(length, length) for length in lengths])
    expected, _ = await trained_without_buckets(keys=[])
    results = []
    for limit in (3, 64):
        async with mx.BucketingModule(sym_gen, 6, max_buckets=limit) as module:
            await ready(module)
            source.reset()
            history = await module.fit(source, num_epoch=3, eval_metric=["acc", "ce"])
            results.append((await module.get_params())[0])
            assert history.epochs[0]["batches"] == len(lengths)
            assert module.current_bucket_key == lengths[-1]
            assert len(module.bucket_report()) <= limit
    assert same(*results)
    assert not same(results[0], expected)


# The loops


@pytest.mark.parametrize("in_flight", [1, 2])
async def test_fit_counts_each_batch_by_its_own_bucket(in_flight: int) -> None:
    lengths = [6, 2, 4, 2]
    source = Source([batch(n, i, pad=i % 2) for i, n in enumerate(lengths)])
    counts: list[int] = []
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        await module.fit(
            source,
            eval_data=source,
            num_epoch=2,
            eval_metric="acc",
            batch_end_callback=lambda p: counts.append(p.eval_metric.num_inst),
            in_flight=in_flight,
        )
        # 4 rows, or 3 without padding, of 6, 2, 4 and 2 steps.
        assert counts[:4] == [24, 30, 46, 52]
        learnt = (await module.get_params())[0]
    expected, _ = await trained_without_buckets(keys=[])
    async with mx.Module(net()) as plain:
        await ready(plain)
        source.reset()
        await plain.fit(source, num_epoch=2)
        expected, _ = await plain.get_params()
    assert same(learnt, expected)


def more_outputs(key: int) -> Any:
    """The longer the bucket, the more it puts out."""
    symbol = net()
    inside = symbol.get_internals()
    names = ["fc1_output", "fc2_output"][: key // 2 - 1]
    outputs = [mx.sym.BlockGrad(inside[name]) for name in names]
    return mx.sym.Group([symbol, *outputs]), ["data"], ["softmax_label"]


async def test_metrics_see_the_outputs_of_the_batchs_own_bucket() -> None:
    source = Source([batch(length) for length in (2, 4, 6)])
    metric = mx.metric.Accuracy(
        output_names=["softmax_output"], label_names=["softmax_label"]
    )
    async with mx.BucketingModule(more_outputs, 4) as module:
        await module.bind(*shapes(4))
        await module.init_params(arg_params=first_values())
        scored = await module.score(source, metric)
        assert metric.num_inst == ROWS * 12
        with pytest.raises(AssertionError, match="num of outputs is not the same"):
            await module.predict(source)
        source.reset()
        await module.fit(source, num_epoch=1, eval_metric=metric)
        assert metric.num_inst == ROWS * 12
    async with mx.Module(net()) as plain:
        await ready(plain)
        assert await plain.score(source, "acc") == scored


async def test_score_and_predict() -> None:
    source = Source([batch(length, length) for length in (2, 4, 6)])
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        scored = await module.score(source, ["acc", "ce"])
        merged = await module.predict(source)
        assert merged.shape == (ROWS * 12, CLASSES)
        per_batch = await module.predict_every_batch(source)
        assert [outputs[0].shape[0] for outputs in per_batch] == [8, 16, 24]
        async for outputs, nbatch, _ in module.iter_predict(source):
            assert same(outputs, per_batch[nbatch])
    async with mx.Module(net()) as plain:
        await ready(plain)
        assert await plain.score(source, ["acc", "ce"]) == scored
        assert same(await plain.predict(source), merged)


# Binding again, checkpoints


async def test_a_rebind_keeps_what_was_learnt() -> None:
    expected, _ = await trained_without_buckets()
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        for seed, length in enumerate(KEYS):
            if seed == 3:
                await module.bind(*shapes(4), force_rebind=True)
                assert module.current_bucket_key == 6
                assert module.data_shapes == shapes(4)[0]
            await module.step(batch(length, seed))
        assert same((await module.get_params())[0], expected)


async def test_checkpoint_round_trip(tmp_path: Path) -> None:
    """Upstream test_bucketing_save_load: fit goes on from a loaded checkpoint."""
    prefix = tmp_path / "net"
    source = Source([batch(length, i) for i, length in enumerate(KEYS)])
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        await module.fit(source, num_epoch=1)
        await module.save_checkpoint(prefix, 3)
        saved = await module.get_params()
    assert sorted(os.listdir(tmp_path)) == [
        "net-0003.params",
        *(f"net-{key}-symbol.json" for key in (2, 4, 6)),
        "net.buckets",
    ]
    [keys] = mx.nd.load(prefix.with_suffix(".buckets"))
    assert keys.dtype == np.int32
    assert sorted(keys.tolist()) == [2, 4, 6]  # type: ignore[union-attr]

    def only_names(key: int) -> Any:
        return mx.sym.Variable("unused"), ["data"], ["softmax_label"]

    loaded = await mx.BucketingModule.load(prefix, 3, only_names, 6)
    async with loaded as module:
        assert same(await module.get_params(), saved)
        await module.bind(*shapes(6))
        assert same(await module.get_params(), saved)
        before = (await module.get_params())[0]
        await module.fit(source, num_epoch=1)
        assert not same((await module.get_params())[0], before)


async def test_checkpoint_errors(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="`sym_gen` and `default_bucket_key`"):
        await mx.BucketingModule.load(tmp_path / "net", 0, sym_gen)
    with pytest.raises(AssertionError, match="`sym_gen` and `default_bucket_key`"):
        mx.BucketingModule.load_dict({}, None, 6)
    with pytest.raises(FileNotFoundError):
        await mx.BucketingModule.load(tmp_path / "net", 0, sym_gen, 6)
    async with mx.BucketingModule(sym_gen, "long") as module:
        await ready(module)
        with pytest.raises(ValueError, match="bucket key 'long' is no 32-bit integer"):
            await module.save_checkpoint(tmp_path / "net", 0)
    assert not os.listdir(tmp_path)
    mx.nd.save(str(tmp_path / "net.buckets"), {"keys": np.ones(1, np.int32)})
    with pytest.raises(OSError, match="does not hold bucket keys"):
        await mx.BucketingModule.load(tmp_path / "net", 0, sym_gen, 6)


async def test_optimizer_states_are_those_of_all_buckets(tmp_path: Path) -> None:
    expected, _ = await trained_without_buckets()
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        for seed, length in enumerate(KEYS[:3]):
            await module.step(batch(length, seed))
        await module.save_optimizer_states(tmp_path / "states")
        learnt = await module.get_params()
    async with mx.BucketingModule(sym_gen, 6) as module:
        await ready(module)
        await module.set_params(*learnt)
        await module.load_optimizer_states(tmp_path / "states")
        for seed, length in enumerate(KEYS[3:], 3):
            await module.step(batch(length, seed))
        assert same((await module.get_params())[0], expected)


# Tasks and cancellation


async def test_many_tasks_over_few_buckets() -> None:
    async with mx.BucketingModule(sym_gen, 6, max_buckets=3) as module:
        await ready(module)
        expected = {n: await module.predict(batch(n)) for n in (2, 3, 4, 5)}

        async def ask(length: int) -> None:
            for _ in range(4):
                assert same(await module.predict(batch(length)), expected[length])

        async with trio.open_nursery() as nursery:
            for length in (2, 3, 4, 5):
                nursery.start_soon(ask, length)
        assert len(module.bucket_report()) <= 3 + 3


async def test_closing_while_a_bucket_is_compiled() -> None:
    async with mx.open_runtime() as runtime:
        module = mx.BucketingModule(sym_gen, 6)
        await ready(module)
        memory = module._default.core.need_executors("test").first.group._memory

        async def switch() -> None:
            with pytest.raises(RuntimeError, match="closed"):
                await module.switch_bucket(2, *shapes(2))

        with held_threads(runtime, "queued") as gate:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(switch)
                while not gate._waiting:  # the compilation has been asked for
                    await trio.lowlevel.checkpoint()
                nursery.start_soon(module.aclose)
        assert memory.users == 0


async def state_of(module: mx.BucketingModule) -> dict[str, Array]:
    """Parameters and momentum."""
    arguments, _ = await module.get_params()
    default = module._default
    assert default.core.optimization is not None
    group = default.core.need_executors("test").first.group
    states = await group.read_updater_states(default.core.optimization.updater)
    momentum = {f"m {n}": v for n, v in states.get("momentum", {}).items()}
    return {**arguments, **momentum}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["cpu", "references"])
async def test_a_cancelled_switch_leaves_the_current_bucket(
    where: str, place: GatePlace
) -> None:
    async with mx.open_runtime() as runtime:
        module = mx.BucketingModule(sym_gen, 6, context=WHERE[where])
        await ready(module)
        before = await state_of(module)

        async def call() -> None:
            await module.switch_bucket(2, *shapes(2))

        async def check(finished: bool) -> None:
            keys = [bucket.key for bucket in module.bucket_report()]
            assert module.current_bucket_key == (2 if finished else 6)
            assert keys in ([6], [6, 2])
            assert same(await state_of(module), before)
            with trio.CancelScope(shield=True):
                await module.bind(*shapes(6), force_rebind=True)

        assert await cancel_at_every_step(call, check, runtime=runtime, place=place) > 3


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["cpu", "references"])
@pytest.mark.parametrize("what", ["forward", "step", "fit"])
async def test_cancelled_training_stands_at_a_step_boundary(
    what: str, where: str, place: GatePlace
) -> None:
    lengths = [2, 6, 2] if what == "fit" else [2]
    async with mx.open_runtime() as runtime:
        module = mx.BucketingModule(sym_gen, 6, context=WHERE[where], max_buckets=3)
        await ready(module)

        async def start() -> None:
            """From the same state, and with the default bucket alone."""
            await module.bind(*shapes(6), force_rebind=True)
            await module.set_params(first_values(), {})
            settings = {"rescale_grad": 1 / ROWS, **SETTINGS}
            await module.init_optimizer(optimizer_params=settings, force_init=True)

        await start()
        expected = [await state_of(module)]
        for seed, length in enumerate(lengths):
            await module.step(batch(length, seed))
            expected.append(await state_of(module))

        async def call() -> None:
            source = Source([batch(n, seed) for seed, n in enumerate(lengths)])
            if what == "fit":
                await module.fit(source, num_epoch=1)
            else:
                await getattr(module, what)(source.batches[0])

        async def check(finished: bool) -> None:
            assert module.optimizer is not None
            count = module.optimizer.num_update
            assert count <= len(lengths)
            if finished:
                assert count == (0 if what == "forward" else len(lengths))
            assert same(await state_of(module), expected[count])
            await start()

        await start()
        assert await cancel_at_every_step(call, check, runtime=runtime, place=place) > 3


READERS = {
    "score": lambda module: module.score(Source([batch(2), batch(4)]), "acc"),
    "predict": lambda module: module.predict(Source([batch(2), batch(4)])),
    "prepare": lambda module: module.prepare(batch(2)),
    "get_params": lambda module: module.get_params(),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["cpu", "references"])
@pytest.mark.parametrize("name", READERS)
async def test_cancelled_reading_disturbs_nothing(
    name: str, where: str, place: GatePlace
) -> None:
    expected, _ = await trained_without_buckets(WHERE[where], keys=[6])
    async with mx.open_runtime() as runtime:
        module = mx.BucketingModule(sym_gen, 6, context=WHERE[where])
        await ready(module)
        await module.forward(batch(6))
        [before] = await module.get_outputs()

        async def call() -> None:
            await READERS[name](module)

        async def check(finished: bool) -> None:
            assert module.current_bucket_key == 6
            assert same(await module.get_outputs(), [before])
            # The next time the buckets are compiled anew.
            await module._buckets.clear()

        assert await cancel_at_every_step(call, check, runtime=runtime, place=place) > 0
        await module.backward()
        await module.update()
        assert same((await module.get_params())[0], expected)


@pytest.mark.parametrize("place", PLACES)
async def test_a_cancelled_init_optimizer_leaves_one_optimizer_for_all(
    place: GatePlace,
) -> None:
    async with mx.open_runtime() as runtime:
        module = mx.BucketingModule(sym_gen, 6, context=[mx.cpu(0)])
        await ready(module)
        await module.step(batch(2))

        async def call() -> None:
            await module.init_optimizer(force_init=True)

        async def check(finished: bool) -> None:
            optimizers = {id(bucket.module.optimizer) for bucket in module._buckets}
            assert optimizers == {id(module.optimizer)}
            await module.step(batch(2))
            await module.step(batch(6))

        assert await cancel_at_every_step(call, check, runtime=runtime, place=place) > 1


CALLS = {
    "forward": lambda module: module.forward(batch(2)),
    "step": lambda module: module.step(batch(2)),
    "dispatch_step": lambda module: module.fit(Source([batch(2)]), num_epoch=1),
    "dispatch_predict": lambda module: module.predict(batch(2)),
    "prepare": lambda module: module.prepare(batch(2)),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_bucket_that_is_being_called_is_not_freed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tasks ask for other buckets in the middle of the call."""
    owner: Any = ModuleInside if name.startswith("dispatch") else mx.Module
    original = getattr(owner, name)
    asked: list[int] = []

    async def crowded(self: Any, *arguments: Any, **options: Any) -> Any:
        for length in () if asked else (3, 4, 5):
            asked.append(length)
            await module.prepare(batch(length))
        keys = [bucket.key for bucket in module.bucket_report()]
        assert 2 in keys or asked[-1] != 5
        return await original(self, *arguments, **options)

    async with mx.BucketingModule(sym_gen, 6, max_buckets=3) as module:
        await ready(module)
        monkeypatch.setattr(owner, name, crowded)
        await CALLS[name](module)
        assert asked == [3, 4, 5]
        await module.step(batch(2))
