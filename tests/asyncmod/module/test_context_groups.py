"""`group2ctxs`: parts of one symbol on different contexts.

The first two tests are MXNet's `test_module_ctx_group` and
`test_bucket_module_ctx_group`, in our words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.errors import ArgumentError, ArgumentTypeError, DeviceError, GraphError
from asyncmod.io import DataBatch, NDArrayIter
from runtime.executor.replica import Replica
from tests.asyncmod.module.nets import (
    CLASSES,
    FEATURES,
    aux_values,
    batch,
    ready,
    rows,
    same,
    values,
)
from tests.asyncmod.module.test_cancellation import UNDISTURBED, Trained, Watched
from tests.harness.cancellation import PLACES, GatePlace, cancel_at_every_step

ONE = {"dev1": mx.cpu(1), "dev2": mx.cpu(2)}
FORMS: list[tuple[int, Any]] = [
    (1, ONE),
    (1, [ONE]),
    (2, [ONE, {"dev1": mx.cpu(4), "dev2": mx.cpu(5)}]),
    (2, {"dev1": mx.cpu(2), "dev2": mx.cpu(3)}),
    (2, {"dev1": [mx.cpu(2)], "dev2": [mx.cpu(3)]}),
    (2, {"dev1": mx.cpu(2), "dev2": [mx.cpu(3)]}),
    (2, {"dev1": [mx.cpu(2), mx.cpu(3)], "dev2": [mx.cpu(4), mx.cpu(5)]}),
]


def contexts(count: int) -> list[mx.Context]:
    return [mx.cpu(i) for i in range(count)]


def two_group_sum() -> mx.symbol.Symbol:
    with mx.AttrScope(ctx_group="dev1"):
        a = mx.symbol.Variable("a") * 2
    with mx.AttrScope(ctx_group="dev2"):
        b = mx.symbol.Variable("b")
        return a + b


def mlp_in_groups(dropout: float = 0.3) -> mx.symbol.Symbol:
    """data -> fc1, batch norm in dev1 -> dropout, fc2, softmax in dev2."""
    with mx.AttrScope(ctx_group="dev1"):
        net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=6, name="fc1")
        net = mx.sym.BatchNorm(net, name="bn1", fix_gamma=False)
    with mx.AttrScope(ctx_group="dev2"):
        net = mx.sym.Dropout(net, p=dropout, name="drop")
        net = mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc2")
        return mx.sym.SoftmaxOutput(net, name="softmax")


@pytest.mark.parametrize(("count", "groups"), FORMS)
async def test_gradients_are_those_without_groups(count: int, groups: Any) -> None:
    results = []
    for group2ctxs in (groups, None):
        module = mx.Module(
            two_group_sum(),
            context=contexts(count),
            data_names=["a", "b"],
            label_names=None,
            group2ctxs=group2ctxs,
        )
        async with module:
            shape = (2, 5)
            await module.bind([("a", shape), ("b", shape)], inputs_need_grad=True)
            await module.init_params()
            ones = np.ones(shape, np.float32)
            await module.forward(DataBatch([ones, ones]), is_train=True)
            await module.backward([ones])
            results.append([await module.get_input_grads(), await module.get_outputs()])
    assert same(*results)
    np.testing.assert_array_equal(results[0][0][0], np.full((2, 5), 2))


@pytest.mark.parametrize(("count", "groups"), FORMS)
async def test_buckets_in_groups_are_those_without(count: int, groups: Any) -> None:
    def generate(length: int) -> Any:
        with mx.AttrScope(ctx_group="dev1"):
            weight = mx.symbol.Variable("dev1_weight")
            bias = mx.symbol.Variable("dev1_bias")
            net = mx.symbol.Variable("data")
            for k in range(length):
                net = mx.sym.FullyConnected(
                    net, weight, bias, num_hidden=FEATURES, name=f"layer{k}"
                )
        with mx.AttrScope(ctx_group="dev2"):
            net = mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc")
            net = mx.sym.SoftmaxOutput(net, name="softmax")
        return net, ("data",), ("softmax_label",)

    results = []
    for group2ctxs in (groups, None):
        module = mx.BucketingModule(
            generate, 3, context=contexts(count), group2ctxs=group2ctxs
        )
        async with module:
            shapes = [("data", (4, FEATURES))], [("softmax_label", (4,))]
            await module.bind(*shapes)
            await module.init_params(arg_params=values(generate(3)[0]))
            await module.init_optimizer(optimizer_params={"learning_rate": 0.5})
            for key in (1, 3, 2, 1):
                data, label = rows(4, key)
                await module.step(
                    DataBatch(
                        [data],
                        [label],
                        bucket_key=key,
                        provide_data=shapes[0],
                        provide_label=shapes[1],
                    )
                )
            results.append([(await module.get_params())[0], await module.get_outputs()])
    assert results[0][0].keys() == results[1][0].keys()
    for name, value in results[1][0].items():
        np.testing.assert_allclose(results[0][0][name], value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(results[0][1][0], results[1][1][0], rtol=1e-5)


def source(seed: int = 0) -> NDArrayIter:
    """Batches of which the last is padded."""
    return NDArrayIter(*rows(20, seed), batch_size=8)


async def everything(module: mx.Module, directory: Path, **options: Any) -> list[Any]:
    """Train, score, predict, save, load and rebind; all that came out."""
    await ready(module)
    history: list[Any] = []
    await module.fit(
        source(),
        num_epoch=3,
        optimizer_params={"learning_rate": 0.2, "momentum": 0.9},
        batch_end_callback=lambda p: history.append(p.eval_metric.get()[1]),
        **options,
    )
    results: list[Any] = [history, await module.get_params(), await module.get_grads()]
    results.append(await module.score(source(1), ["acc", "ce"]))
    results.append(await module.predict(source(1)))
    prefix = directory / "saved"
    await module.save_checkpoint(prefix, 1, save_optimizer_states=True)
    await module.reshape([("data", (5, FEATURES))], [("softmax_label", (5,))])
    await module.step(batch(5))
    results += [await module.get_outputs(), await module.get_params()]
    await module.forward(batch(3), is_train=False)
    results.append(await module.get_outputs(merge_multi_context=False))
    await module.bind(
        [("data", (8, FEATURES))],
        [("softmax_label", (8,))],
        inputs_need_grad=True,
        force_rebind=True,
        grad_req="add",
    )
    for seed in range(2):
        await module.forward(batch(8, seed))
        await module.backward()
    await module.update()
    results += [await module.get_input_grads(), await module.get_params()]
    loaded = await mx.Module.load(
        prefix,
        1,
        load_optimizer_states=True,
        context=module.core.definition.contexts,
        group2ctxs=list(module.core.definition.placements) or None,
    )
    async with loaded:
        await loaded.bind([("data", (8, FEATURES))], [("softmax_label", (8,))])
        await loaded.init_optimizer(optimizer_params={"learning_rate": 0.2})
        await loaded.step(batch(8))
        results.append(await loaded.get_params())
    return results


@pytest.mark.parametrize("kvstore", [None, "local", "device"])
@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", [mx.cpu, mx.reference])
async def test_all_that_a_module_does(
    kind: Any, count: int, in_flight: int, kvstore: str | None, tmp_path: Path
) -> None:
    results = []
    groups = {"dev1": kind(2), "dev2": [kind(3 + i) for i in range(count)]}
    for group2ctxs in (groups, None):
        module = mx.Module(
            mlp_in_groups(),
            context=[kind(i) for i in range(count)],
            group2ctxs=group2ctxs,
        )
        async with mx.open_runtime():
            mx.random.seed(3)
            async with module:
                results.append(
                    await everything(
                        module, tmp_path, kvstore=kvstore, in_flight=in_flight
                    )
                )
    assert_close(*results)


def assert_close(found: Any, wanted: Any) -> None:
    """Equal but for the rounding where the cut parts what is one kernel."""
    assert type(found) is type(wanted)
    if isinstance(found, dict):
        assert found.keys() == wanted.keys()
        for name in found:
            assert_close(found[name], wanted[name])
    elif isinstance(found, list | tuple):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert_close(a, b)
    elif isinstance(found, str):
        assert found == wanted
    elif found is not None:
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


async def test_work_is_done_where_the_groups_are() -> None:
    ran: set[str] = set()
    where = {"dev1": mx.reference(1), "dev2": mx.reference(2)}
    module = mx.Module(mlp_in_groups(), context=mx.reference(0), group2ctxs=where)
    async with mx.open_runtime(), module:
        await ready(module)
        rows_of: dict[str, set[str]] = {}
        for replica in module.core.need_executors("test").first.group._replicas:
            for work in getattr(replica, "_work", ()):
                program = work.training
                assert program is not None
                names = rows_of.setdefault(program.device, set())
                names |= {row.node for row in program.plan.sections["forward"]}
        ran |= rows_of.keys()
    assert rows_of["reference(1)"] == {"fc1", "bn1"}
    assert rows_of["reference(2)"] >= {"drop", "fc2", "softmax"}
    assert ran == {"reference(1)", "reference(2)"}


async def test_modules_share_parameters_in_the_same_groups() -> None:
    where = {"dev1": mx.cpu(1), "dev2": mx.cpu(2)}
    options: dict[str, Any] = {"context": mx.cpu(0), "group2ctxs": where}
    first, second = (mx.Module(mlp_in_groups(), **options) for _ in range(2))
    other = mx.Module(mlp_in_groups(), context=mx.cpu(0))
    async with mx.open_runtime(), first, second, other:
        await ready(first, learning_rate=0.1)
        shapes = [("data", (4, FEATURES))], [("softmax_label", (4,))]
        await second.bind(*shapes, shared_module=first)
        await second.step(batch(4))
        assert same(await first.get_params(), await second.get_params())
        assert not same((await first.get_params())[0], values(mlp_in_groups()))
        with pytest.raises(ArgumentError, match="group2ctxs"):
            await other.bind(*shapes, shared_module=first)


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        ({"dev1": [mx.cpu(1)] * 3}, ArgumentError, "3 contexts for the group 'dev1'"),
        ([{"dev1": mx.cpu(1)}], ArgumentError, "1 entries for 2 contexts"),
        ({"dev1": "cpu"}, ArgumentTypeError, "'cpu' for the group 'dev1'"),
        ([mx.cpu(1), mx.cpu(2)], ArgumentTypeError, "list must hold dicts"),
        ("dev1", ArgumentTypeError, "must be a dict of group to context"),
    ],
)
def test_groups_that_cannot_be(groups: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        mx.Module(mlp_in_groups(), context=contexts(2), group2ctxs=groups)


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        ({"dev1": mx.cpu(1)}, GraphError, "`dev2`, which has no context"),
        ({"dev1": mx.cpu(1), "dev2": mx.gpu(0)}, DeviceError, "gpu"),
    ],
)
async def test_groups_that_a_bind_refuses(groups: Any, error: type, words: str) -> None:
    module = mx.Module(mlp_in_groups(), context=mx.cpu(0), group2ctxs=groups)
    async with module:
        with pytest.raises(error, match=words):
            await ready(module)
        assert not module.binded


@pytest.mark.parametrize("groups", [None, {}, [{}], [None]])
async def test_no_groups_are_no_groups(groups: Any) -> None:
    async with mx.Module(mlp_in_groups(), group2ctxs=groups) as module:
        await ready(module, learning_rate=0.1)
        await module.step(batch())
        assert (
            type(module.core.need_executors("test").first.group._replicas[0]) is Replica
        )


@pytest.mark.parametrize("batches", [2, 3])
async def test_batches_accumulate(batches: int) -> None:
    results = []
    where = {"dev1": mx.reference(0), "dev2": mx.reference(1)}
    for group2ctxs in (where, None):
        mx.random.seed(5)
        net = mlp_in_groups(dropout=0.0)
        module = mx.Module(net, context=mx.reference(0), group2ctxs=group2ctxs)
        async with module:
            await ready(module, learning_rate=0.5)
            await module.fit(source(), num_epoch=2, accumulate=batches)
            results.append(await module.get_params())
    assert_close(*results)


async def test_monitors_show_what_one_device_would() -> None:
    results = []
    where = {"dev1": mx.cpu(1), "dev2": mx.cpu(2)}
    for group2ctxs in (where, None):
        mx.random.seed(5)
        async with mx.Module(mlp_in_groups(), group2ctxs=group2ctxs) as module:
            await ready(module, learning_rate=0.5)
            monitor = mx.mon.Monitor(1, lambda x: float(np.abs(x).mean()))
            module.install_monitor(monitor)
            monitor.tic()
            await module.step(batch())
            results.append([row[1:] for row in monitor.toc()])
    assert [name for name, _ in results[0]] == [name for name, _ in results[1]]
    assert len(results[0]) > 10


@pytest.mark.parametrize("kind", [mx.cpu, mx.reference])
async def test_bound_symbols_have_groups_too(kind: Any) -> None:
    net = mlp_in_groups(dropout=0.0)
    data, label = rows(8)
    arguments = values(net) | {"data": data, "softmax_label": label}
    results = []
    for group2ctx in ({"dev1": kind(1), "dev2": kind(2)}, None):
        async with mx.bind(
            net,
            arguments,
            aux=aux_values(net),
            grad_req={"data": "add", "fc1_weight": "write", "fc2_bias": "add"},
            context=kind(0),
            group2ctx=group2ctx,
        ) as executor:
            outputs = await executor.forward(is_train=True)
            await executor.backward()
            await executor.forward(is_train=True, data=data * 2)
            gradients = await executor.backward()
            results.append([outputs, gradients, await executor.aux()])
    assert_close(*results)
    with pytest.raises(ArgumentTypeError, match="`group2ctx`"):
        async with mx.bind(net, arguments, group2ctx=kind(1)):
            pass


class Grouped(Trained):
    """A module in groups that always sees the same batch."""

    def __init__(self, where: list[Any]) -> None:
        self.module = Watched(
            mlp_in_groups(dropout=0.0),
            context=where[0],
            group2ctxs={"dev1": where[1], "dev2": where[2]},
        )
        self.batch = batch()
        self.expected = UNDISTURBED.setdefault(("groups", *where), [])


HOST = [mx.reference(i) for i in range(3)]
APART = [mx.reference(0), mx.Context("simulated", 1), mx.reference(1)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", [HOST, APART], ids=["host", "apart"])
@pytest.mark.parametrize(
    "call", [Trained.step, Trained.fit, Trained.fit_in_order], ids=lambda c: c.__name__
)
async def test_cancelled_training_stands_at_a_step_boundary(
    call: Any, where: list[Any], place: GatePlace
) -> None:
    async with mx.open_runtime() as runtime:
        grouped = Grouped(where)
        await grouped.prepare(80)
        steps = await cancel_at_every_step(
            lambda: call(grouped), grouped.check, runtime=runtime, place=place
        )
        assert steps >= 1
        before = grouped.count
        await grouped.step()
        assert grouped.count == before + 1
        await grouped.check(True)


async def test_prediction_needs_no_training() -> None:
    results = []
    where = {"dev1": mx.cpu(1), "dev2": mx.cpu(2)}
    for group2ctxs in (where, None):
        net = mlp_in_groups()
        async with mx.Module(net, group2ctxs=group2ctxs) as module:
            await module.bind([("data", (8, FEATURES))], for_training=False)
            await module.init_params(arg_params=values(net), aux_params=aux_values(net))
            await module.forward(batch())
            outputs = await module.get_outputs()
            results.append([outputs, await module.predict(source())])
    assert_close(*results)


async def test_large_batches_are_copied_before_the_next() -> None:
    """Batches that are too large to be copied at dispatch, from one reused array."""

    class Reused:
        provide_data = (mx.io.DataDesc("data", (4, 1 << 17)),)
        provide_label = (mx.io.DataDesc("softmax_label", (4,)),)
        batch_size = 4

        async def __aiter__(self) -> Any:
            data = np.zeros((4, 1 << 17), np.float32)
            for k in range(3):
                data[...] = k + 1
                yield mx.io.DataBatch([data], [np.arange(4) % 3.0])
            data[...] = np.nan

    results = []
    for group2ctxs in ({"dev1": mx.cpu(1), "dev2": mx.cpu(2)}, None):
        mx.random.seed(2)
        module = mx.Module(mlp_in_groups(dropout=0.0), group2ctxs=group2ctxs)
        async with module:
            await module.fit(Reused(), num_epoch=1, initializer=mx.init.Uniform(1e-3))
            results.append(await module.get_params())
    assert_close(*results)
    assert all(np.isfinite(array).all() for array in results[0][0].values())


async def test_groups_in_worker_processes() -> None:
    """One group in the host's memory, one in that of the workers."""
    results = []
    for worker in ("process", "thread"):
        where = {"dev1": mx.cpu(0), "dev2": mx.cpu(1, worker=worker)}
        mx.random.seed(5)
        module = mx.Module(mlp_in_groups(), group2ctxs=where)
        async with module:
            await ready(module, learning_rate=0.5)
            monitor = mx.mon.Monitor(1, lambda x: float(np.abs(x).mean()))
            module.install_monitor(monitor)
            for seed in range(3):
                await module.step(batch(seed=seed))
            monitor.tic()
            await module.step(batch())
            shown = [row[1:] for row in monitor.toc()]
            results.append([await module.get_params(), await module.get_grads(), shown])
    assert same(results[0][:2], results[1][:2])
    assert results[0][2] == results[1][2]


async def test_groups_that_the_symbol_does_not_have_are_ignored() -> None:
    groups = {"dev1": mx.cpu(1), "dev2": mx.cpu(0), "dev3": mx.cpu(2)}
    async with mx.Module(mlp_in_groups(), group2ctxs=groups) as module:
        await ready(module, learning_rate=0.1)
        await module.step(batch())
