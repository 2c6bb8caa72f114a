"""Monitored modules: what they compute stays the same, and the loop goes on."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.nd import NDArray
from runtime.actors.actor import send
from runtime.actors.command import Command
from tests.asyncmod.module.nets import (
    Array,
    aux_values,
    batch,
    mlp,
    mlp_bn,
    ready,
    values,
)
from tests.asyncmod.module.test_cancellation import Trained
from tests.asyncmod.module.test_golden_nets import CASES, load
from tests.golden.arrays import tolerance
from tests.golden.module_coverage import covered
from tests.harness.cancellation import PLACES, GatePlace, cancel_at_every_step


class Lines:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, *args: Any) -> None:
        self.lines.append(event % args if args else event)

    warning = info


async def test_shows_the_parameters_of_before_the_update() -> None:
    kept: dict[str, Array] = {}
    monitor = mx.mon.Monitor(1, lambda x: x.copy())
    async with mx.Module(mlp_bn()) as module:
        await ready(module)
        await module.init_optimizer(optimizer_params={"learning_rate": 1.0})
        module.install_monitor(monitor)
        before = await module.get_params()
        monitor.tic()
        await module.step(batch())
        kept = {name: value for _, name, value in monitor.queue}
        kept |= {
            name: value
            for results in monitor._arguments.values()
            for _, name, value in results
        }
        outputs, gradients = await module.get_outputs(), await module.get_grads()
        after = await module.get_params()
    for name, value in {**before[0], **before[1]}.items():
        np.testing.assert_array_equal(kept[name], value)
    assert (after[0]["fc1_weight"] != before[0]["fc1_weight"]).any()
    np.testing.assert_allclose(kept["softmax_output"], outputs[0], rtol=1e-6)
    np.testing.assert_allclose(
        kept["fc1_backward_output1"], gradients["fc1_weight"], rtol=1e-4, atol=1e-6
    )


async def test_a_fused_net_shows_the_gradients_that_it_is_trained_with() -> None:
    net = mx.sym.Variable("data")
    net = mx.sym.Convolution(net, kernel=(3, 3), pad=(1, 1), num_filter=4, name="conv")
    net = mx.sym.BatchNorm(net, fix_gamma=False, name="bn")
    net = mx.sym.Activation(net, act_type="relu", name="relu")
    net = mx.sym.Pooling(
        net, kernel=(2, 2), stride=(2, 2), pool_type="max", name="pool"
    )
    net = mx.sym.Flatten(net, name="flat")
    net = mx.sym.FullyConnected(net, num_hidden=3, name="fullyconnected0")
    net = mx.sym.SoftmaxOutput(net, name="softmax")
    shown: dict[str, Array] = {}
    monitor = mx.mon.Monitor(1, lambda x: x.copy())
    data = np.random.default_rng(1).normal(size=(6, 3, 8, 8)).astype(np.float32)
    async with mx.Module(net) as module:
        await module.bind([("data", data.shape)], [("softmax_label", (6,))])
        await module.init_params(mx.init.Xavier())
        await module.init_optimizer()
        module.install_monitor(monitor)
        monitor.tic()
        await module.step(mx.io.DataBatch([data], [np.arange(6) % 3.0]))
        shown = {name: value for _, name, value in monitor.queue}
        outputs, gradients = await module.get_outputs(), await module.get_grads()
    np.testing.assert_allclose(shown["softmax_output"], outputs[0], rtol=1e-5)
    for name, made in {
        "conv_weight": "conv_backward_output1",
        "bn_gamma": "bn_backward_output1",
        "bn_beta": "bn_backward_output2",
        "fullyconnected0_weight": "fullyconnected0_backward_output1",
    }.items():
        scale = np.abs(gradients[name]).max()
        np.testing.assert_allclose(shown[made], gradients[name], atol=1e-5 * scale)
    assert shown["conv_output"].shape == (6, 4, 8, 8)
    assert shown["flat_backward_output"].shape == shown["pool_output"].shape


@pytest.mark.parametrize("devices", [1, 2])
async def test_changes_nothing(devices: int) -> None:
    net = mx.sym.Variable("data")
    net = mx.sym.FullyConnected(net, num_hidden=8, name="fc1")
    net = mx.sym.BatchNorm(net, name="bn1", fix_gamma=False)
    net = mx.sym.Dropout(net, p=0.5, name="drop")
    net = mx.sym.FullyConnected(net, num_hidden=3, name="fc2")
    net = mx.sym.SoftmaxOutput(net, name="softmax")
    data = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    label = np.arange(24, dtype=np.float32) % 3
    ends = []
    for interval in (None, 1, 2):
        mx.seed(5)
        monitor = None if interval is None else mx.mon.Monitor(interval, logger=Lines())
        async with mx.Module(net, context=[mx.cpu(i) for i in range(devices)]) as mod:
            history = await mod.fit(
                mx.io.NDArrayIter(data, label, 8),
                num_epoch=3,
                optimizer="adam",
                arg_params=values(net),
                aux_params=aux_values(net),
                monitor=monitor,
            )
            ends.append((await mod.get_params(), await mod.get_outputs(), history))
    for (arguments, auxiliaries), outputs, history in ends[1:]:
        for name, value in {**ends[0][0][0], **ends[0][0][1]}.items():
            same = {**arguments, **auxiliaries}[name]
            np.testing.assert_array_equal(same, value)
        np.testing.assert_array_equal(outputs[0], ends[0][1][0])
        rows = [row["train-accuracy"] for row in history.epochs]
        assert rows == [row["train-accuracy"] for row in ends[0][2].epochs]


@pytest.mark.parametrize("devices", [1, 2])
async def test_dropout_has_the_mask_of_the_step(devices: int) -> None:
    net = mx.sym.Dropout(mx.sym.Variable("data"), p=0.5, name="drop")
    net = mx.sym.MakeLoss(net, name="loss")
    monitor = mx.mon.Monitor(1, lambda x: x.copy(), "drop_")
    contexts = [mx.cpu(i) for i in range(devices)]
    async with mx.Module(net, label_names=None, context=contexts) as module:
        await module.bind([("data", (6, 40))], inputs_need_grad=True)
        await module.init_params()
        module.install_monitor(monitor)
        for _ in range(3):
            monitor.tic()
            await module.forward_backward(
                mx.io.DataBatch([np.ones((6, 40), np.float32)])
            )
            queue = monitor.queue
            monitor.toc()
            seen = np.concatenate([v for _, n, v in queue if n == "drop_output"])
            np.testing.assert_array_equal(seen, (await module.get_outputs())[0])
            seen = np.concatenate([v for _, n, v in queue if "backward" in n])
            np.testing.assert_array_equal(seen, (await module.get_input_grads())[0])


async def test_every_second_batch_of_fit_is_logged() -> None:
    lines = Lines()
    monitor = mx.mon.Monitor(2, pattern="fc2_output", logger=lines)
    ran: list[str] = []

    def note(param: Any) -> None:
        ran.append(f"callback {param.nbatch} after {len(lines.lines)}")

    data, label = np.zeros((40, 5), np.float32), np.zeros(40, np.float32)
    async with mx.Module(mlp()) as module:
        await module.fit(
            mx.io.NDArrayIter(data, label, 8),
            num_epoch=1,
            monitor=monitor,
            batch_end_callback=note,
        )
    assert [line[:46] for line in lines.lines] == [
        "Batch:       1 fc2_output                     ",
        "Batch:       3 fc2_output                     ",
        "Batch:       5 fc2_output                     ",
    ]
    # Each batch is printed before its own callback and after that of the one before.
    assert ran == [
        *("callback 0 after 1", "callback 1 after 1", "callback 2 after 2"),
        *("callback 3 after 2", "callback 4 after 3"),
    ]
    assert monitor.step == 5


async def test_a_batch_that_is_not_monitored_makes_no_second_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes: list[int] = []
    pass_ = "runtime.executor.replica.UnfusedPass.forward"
    monkeypatch.setattr(pass_, lambda self: passes.append(self._device))
    monitor = mx.mon.Monitor(3)
    async with mx.Module(mlp(), context=[mx.cpu(0), mx.cpu(1)]) as module:
        await ready(module)
        module.install_monitor(monitor)
        for _ in range(6):
            monitor.tic()
            await module.forward(batch())
            monitor.toc()
        await module.forward(batch())
    assert sorted(passes) == [0, 0, 1, 1]


@pytest.mark.parametrize("call", ["step", "forward", "backward", "predicting forward"])
async def test_statistics_are_made_on_device_threads_and_the_loop_goes_on(
    call: str,
) -> None:
    threads: set[str] = set()
    ticks = 0
    entered, go_on = threading.Event(), threading.Event()

    def wait(x: Any) -> float:
        assert monitor._computing.locked()
        assert not x.flags.writeable
        threads.add(threading.current_thread().name)
        entered.set()
        assert go_on.wait(5)
        return 0.0

    async def tick() -> None:
        nonlocal ticks
        while not entered.is_set():
            await trio.lowlevel.checkpoint()
        for _ in range(100):
            await trio.lowlevel.checkpoint()
            ticks += 1
        go_on.set()

    monitor = mx.mon.Monitor(1, wait)
    async with mx.Module(mlp()) as module:
        await ready(module)
        await module.init_optimizer()
        module.install_monitor(monitor)
        await module.forward(batch(), is_train=False)
        await module.forward(batch())
        monitor.tic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            if call == "step":
                await module.step(batch())
            elif call == "backward":
                await module.backward()
            else:
                await module.forward(batch(), is_train=call == "forward")
        assert monitor.toc() != []
    assert ticks == 100
    assert threading.main_thread().name not in threads


async def test_a_statistic_that_raises_fails_the_step_and_changes_nothing() -> None:
    def refuse(x: Any) -> float:
        raise ValueError("too small")

    monitor = mx.mon.Monitor(1, refuse, "fc1_backward_output1")
    async with mx.Module(mlp(), context=[mx.cpu(0), mx.cpu(1)]) as module:
        await ready(module)
        await module.init_optimizer()
        module.install_monitor(monitor)
        before, _ = await module.get_params()
        monitor.tic()
        with pytest.raises(ValueError, match="too small") as raised:
            await module.step(batch())
        notes = " ".join(raised.value.__notes__)
        assert "`stat_func` for `fc1_backward_output1`" in notes
        after, _ = await module.get_params()
        assert monitor.toc() == []
        await module.step(batch())
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


async def test_fit_that_fails_leaves_the_monitor_inactive() -> None:
    def refuse(x: Any) -> float:
        raise ValueError("no")

    monitor = mx.mon.Monitor(1, refuse)
    async with mx.Module(mlp()) as module:
        data, label = np.zeros((8, 5), np.float32), np.zeros(8, np.float32)
        with pytest.raises(ValueError, match="no"):
            await module.fit(
                mx.io.NDArrayIter(data, label, 8), num_epoch=1, monitor=monitor
            )
    assert not monitor.activated


async def test_a_cancelled_call_reports_nothing() -> None:
    monitor, gate = mx.mon.Monitor(1), threading.Event()
    async with mx.open_runtime() as runtime, mx.Module(mlp()) as module:
        await ready(module)
        module.install_monitor(monitor)
        monitor.tic()
        [actor] = runtime._actors.values()
        # What has begun runs to its end, so the device must not come to it.
        send(Command("hold", [lambda: gate.wait(10)], ["cpu(0)"]), [actor])
        with trio.CancelScope() as scope:
            scope.cancel()
            await module.forward(batch())
        gate.set()
        assert scope.cancelled_caught
        assert monitor.toc() == []
        monitor.tic()
        await module.forward(batch())
        assert monitor.toc() != []


async def test_a_reshaped_and_rebound_module_stays_monitored() -> None:
    monitor = mx.mon.Monitor(1, lambda x: x.shape[0], "fc2_output")
    async with mx.Module(mlp()) as module:
        await ready(module)
        module.install_monitor(monitor)
        module.install_monitor(monitor)
        seen = []
        for count in (8, 4):
            monitor.tic()
            await module.forward(batch(count))
            seen += monitor.toc()
        await module.bind(
            [("data", (6, 5))], [("softmax_label", (6,))], force_rebind=True
        )
        monitor.tic()
        await module.forward(batch(6))
        seen += monitor.toc()
    assert seen == [(i + 1, "fc2_output", f"{n}\t") for i, n in enumerate((8, 4, 6))]


async def test_buckets_that_come_later_are_monitored() -> None:
    def sym_gen(key: int) -> Any:
        net = mx.sym.Embedding(
            mx.sym.Variable("data"), input_dim=5, output_dim=4, name="emb"
        )
        net = mx.sym.sum(net, axis=1, name="sum")
        net = mx.sym.FullyConnected(net, num_hidden=2, name="fc")
        return mx.sym.SoftmaxOutput(net, name="softmax"), ["data"], ["softmax_label"]

    def bucket(key: int) -> mx.io.DataBatch:
        return mx.io.DataBatch(
            [np.ones((2, key), np.float32)],
            [np.zeros(2, np.float32)],
            bucket_key=key,
            provide_data=[("data", (2, key))],
            provide_label=[("softmax_label", (2,))],
        )

    monitor = mx.mon.Monitor(1, lambda x: x.shape[1], "data")
    async with mx.BucketingModule(sym_gen, default_bucket_key=6) as module:
        await module.bind([("data", (2, 6))], [("softmax_label", (2,))])
        await module.init_params()
        module.install_monitor(monitor)
        seen = []
        for key in (6, 3, 6):
            monitor.tic()
            await module.forward(bucket(key))
            seen += monitor.toc()
    assert seen == [(1, "data", "6\t"), (2, "data", "3\t"), (3, "data", "6\t")]


async def test_all_parts_of_a_sequence_are_monitored() -> None:
    first = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="one")
    second = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="two")
    second = mx.sym.SoftmaxOutput(second, name="softmax")
    monitor = mx.mon.Monitor(1, pattern="one|two", logger=Lines())
    sequence = mx.SequentialModule()
    sequence.add(mx.Module(first, label_names=None))
    sequence.add(mx.Module(second), take_labels=True, auto_wiring=True)
    data, label = np.ones((4, 5), np.float32), np.zeros(4, np.float32)
    async with sequence as module:
        await module.fit(
            mx.io.NDArrayIter(data, label, 4), num_epoch=1, monitor=monitor
        )
        assert len(monitor.logger.lines) == 12
        monitor.tic()
        await module.forward_backward(mx.io.DataBatch([data], [label]))
        found = [label for _, label, _ in monitor.toc()]
    assert found == [
        *("one_output", "two_output"),
        *("two_backward_output0", "two_backward_output1", "two_backward_output2"),
        *("one_backward_output0", "one_backward_output1", "one_backward_output2"),
        *("one_weight", "one_bias", "two_weight", "two_bias"),
    ]


async def test_worker_processes_show_what_threads_show() -> None:
    reports = []
    for worker in ("thread", "process"):
        monitor = mx.mon.Monitor(1)
        context = [mx.cpu(i, worker=worker) for i in range(2)]
        async with mx.Module(mlp_bn(), context=context) as module:
            await ready(module, learning_rate=0.1)
            module.install_monitor(monitor)
            monitor.tic()
            await module.step(batch())
            reports.append(monitor.toc())
    assert len(reports[0]) == 2 * 27
    assert reports[1] == reports[0]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["cpu", "references"])
@pytest.mark.parametrize("call", ["step", "fit"])
async def test_monitored_training_cancelled_anywhere_stands_at_a_step_boundary(
    call: str, where: str, place: GatePlace
) -> None:
    monitor = mx.mon.Monitor(2, pattern="fc1", logger=Lines())

    async with mx.open_runtime() as runtime:
        trained = Trained(where)
        await trained.prepare(60)
        trained.module.install_monitor(monitor)

        async def run() -> None:
            if call == "fit":
                with trained.module.nothing_under_way_after():
                    source = trained.iterator(3)
                    await trained.module.fit(source, num_epoch=1, monitor=monitor)
            else:
                monitor.step = 0
                monitor.tic()
                await trained.step()

        async def check(finished: bool) -> None:
            assert call == "step" or not monitor.activated
            assert bool(monitor.toc()) is (call == "step" and finished)
            await trained.check(finished)

        assert await cancel_at_every_step(run, check, runtime=runtime, place=place) > 1


async def test_a_device_without_rows_has_nothing_to_show() -> None:
    monitor = mx.mon.Monitor(1, lambda x: x.shape[0], "softmax_output")
    async with mx.Module(mlp(), context=[mx.cpu(0), mx.cpu(1)]) as module:
        await ready(module)
        module.install_monitor(monitor)
        seen = []
        for count in (8, 1, 3):
            monitor.tic()
            await module.forward_backward(batch(count))
            seen.append([int(text) for *_, text in monitor.toc()])
    assert seen == [[4, 4], [1], [2, 1]]


async def test_every_batch_of_an_update_is_shown_with_the_same_parameters() -> None:
    norms: list[tuple[str, float]] = []

    def keep(x: NDArray) -> float:
        return float(np.abs(x).sum())

    monitor = mx.mon.Monitor(1, keep, "fc2_weight", logger=Lines())
    data, label = np.tile(batch().data[0], (4, 1)), np.tile(np.arange(8) % 3, 4)
    async with mx.Module(mlp()) as module:
        await module.fit(
            mx.io.NDArrayIter(data, label, 8),
            num_epoch=1,
            accumulate=2,
            monitor=monitor,
            arg_params=values(mlp()),
        )
    norms = [tuple(line.split()[2:]) for line in monitor.logger.lines]
    assert [name for name, _ in norms] == ["fc2_weight"] * 4
    first, second, third, fourth = (value for _, value in norms)
    assert first == second != third == fourth


@pytest.mark.parametrize("name", covered("nets"))
async def test_recorded_nets_show_what_they_compute(name: str) -> None:
    """Outputs and gradients of the unfused pass are those of the plan."""
    case, close = CASES[name], tolerance(CASES[name])
    monitor = mx.mon.Monitor(1, lambda x: x.copy())
    async with mx.open_runtime():
        module, recorded = await load(name, mx.reference(0))
        module.install_monitor(monitor)
        monitor.tic()
        await module.forward_backward(
            mx.io.DataBatch(
                [recorded[f"in.{n}"] for n in case["data_names"]],
                [recorded[f"in.{n}"] for n in case["label_names"]],
            )
        )
        shown = {label: value for _, label, value in monitor.queue}
        gradients = await module.get_grads()
        for label, out in zip(
            module.output_names, await module.get_outputs(), strict=True
        ):
            np.testing.assert_array_equal(shown[label], out)
        graph = module.symbol.graph
        uses = Counter(entry for node in graph.nodes for entry in node.inputs)
        compared = 0
        for node in graph.nodes:
            for i, entry in enumerate(node.inputs):
                made = f"{node.name}_backward_output{i}"
                if uses[entry] == 1 and made in shown and entry.name in gradients:
                    close.check(made, shown[made], gradients[entry.name])
                    compared += 1
    assert compared > 0
