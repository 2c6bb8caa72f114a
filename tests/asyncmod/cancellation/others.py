"""Cases for what is neither a module nor an iterator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np

import asyncmod as mx
from asyncmod.testing import check_iterator
from tests.asyncmod.cancellation import modules
from tests.asyncmod.cancellation.module_subject import ModuleSubject
from tests.asyncmod.cancellation.trial import Case, outcome

INPUT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


class ExecutorSubject:
    """A graph after a forward and a backward."""

    def __init__(self) -> None:
        self.closed = False
        self.stack = AsyncExitStack()

    async def open(self) -> None:
        x = mx.sym.BatchNorm(mx.sym.Variable("data"), name="bn", fix_gamma=False)
        x = mx.sym.MakeLoss(mx.sym.square(x, name="square"), name="loss")
        ones = np.ones(3, np.float32)
        values = {"data": INPUT, "bn_gamma": ones, "bn_beta": ones}
        binding = mx.bind(x, values, grad_req="add", context=mx.reference(0))
        self.executor = await self.stack.enter_async_context(binding)

    async def observe(self) -> Any:
        return self.closed or await outcome(self.executor.aux)

    async def go_on(self) -> Any:
        """Twice, so that values that were kept and gradients that were added show."""
        if self.closed:
            return "closed"
        executor = self.executor
        results: list[Any] = [await outcome(executor.backward)]
        results.append(await executor.forward(is_train=True))
        return [*results, await executor.backward(), await executor.aux()]

    async def aclose(self) -> None:
        await self.stack.aclose()


async def executor(folder: Path) -> ExecutorSubject:
    subject = ExecutorSubject()
    await subject.open()
    await subject.executor.forward(is_train=True)
    await subject.executor.backward()
    return subject


async def forward(subject: ExecutorSubject) -> None:
    await subject.executor.forward(is_train=True, data=INPUT * 2)


async def close(subject: ExecutorSubject) -> None:
    subject.closed = True
    await subject.executor.aclose()


def on_executor(name: str) -> Callable[[ExecutorSubject], Any]:
    return lambda subject: getattr(subject.executor, name)()


class NotBound(ExecutorSubject):
    """What `mx.bind` leaves is nothing."""

    async def observe(self) -> Any:
        return "nothing"

    async def go_on(self) -> Any:
        return "nothing"


async def not_bound(folder: Path) -> NotBound:
    return NotBound()


async def bind(subject: NotBound) -> None:
    await subject.open()
    await subject.stack.aclose()


class StoreSubject:
    """A store with two arrays and an optimizer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = mx.kvstore.create()
        self.out = [np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float32)]

    async def observe(self) -> Any:
        files = {p.name: p.read_bytes() for p in self.folder.iterdir()}
        return {"out": self.out, "files": files}

    async def go_on(self) -> Any:
        await outcome(lambda: self.store.init("new", INPUT * 3))
        await self.store.push(["a", "b"], [INPUT, INPUT])
        values = [np.zeros((4, 3), np.float32) for _ in range(3)]
        await self.store.pull(["a", "b", "new"], values)
        return values

    async def aclose(self) -> None:
        pass


async def store(folder: Path) -> StoreSubject:
    subject = StoreSubject(folder)
    await subject.store.init(["a", "b"], [INPUT, INPUT * 2])
    momentum = mx.optimizer.create("sgd", learning_rate=0.1, momentum=0.9)
    subject.store.set_optimizer(momentum)
    await subject.store.push(["a", "b"], [INPUT, INPUT])
    await subject.store.save_optimizer_states(folder / "saved")
    await subject.store.push(["a", "b"], [INPUT, INPUT])
    return subject


def on_store(name: str, *arguments: Any, out: bool = False) -> Any:
    async def call(subject: StoreSubject) -> None:
        given = (*arguments, subject.out) if out else arguments
        await getattr(subject.store, name)(*given)

    return call


def with_file(name: str, file: str) -> Any:
    async def call(subject: StoreSubject) -> None:
        await getattr(subject.store, name)(subject.folder / file)

    return call


async def row_sparse_pull(subject: StoreSubject) -> None:
    await subject.store.row_sparse_pull("a", subject.out[0], row_ids=np.array([1, 3]))


class BestSubject(ModuleSubject):
    """A module whose best parameters are kept, and that has gone on since."""

    async def keep(self, value: float) -> None:
        metric = mx.metric.Loss()
        metric.update(None, [np.array([value])])
        await self.best(mx.module.callbacks.BatchEndParam(0, 0, metric, {}))

    async def observe(self) -> Any:
        seen = await super().observe()
        return {**seen, "best": self.best.best}

    async def go_on(self) -> Any:
        later = await super().go_on()
        await self.best.restore()
        return [later, await self.module.get_params()]


async def best(folder: Path) -> BestSubject:
    module = mx.Module(modules.net(), context=mx.reference(0), state_names=["memory"])
    batches = [modules.batch(i) for i in range(4)]
    subject = BestSubject(module, modules.shapes(), batches, folder)
    await subject.train()
    subject.best = mx.callback.BestParameters(module, mode="min")
    await subject.keep(1.0)
    await module.step(batches[0])
    return subject


async def better(subject: BestSubject) -> None:
    await subject.keep(0.5)


async def restore(subject: BestSubject) -> None:
    await subject.best.restore()


async def around(subject: BestSubject) -> None:
    async with subject.best:
        await subject.module.step(subject.batches[0])


async def only_restored(subject: BestSubject) -> None:
    async with subject.best:
        pass


class NothingSubject:
    """Of which nothing may be left."""

    async def observe(self) -> Any:
        return "nothing"

    async def go_on(self) -> Any:
        return "nothing"

    async def aclose(self) -> None:
        pass


async def nothing_yet(folder: Path) -> NothingSubject:
    return NothingSubject()


async def check_one(subject: NothingSubject) -> None:
    def make() -> Any:
        data = np.zeros((2, 1))
        return mx.io.NDArrayIter(data, batch_size=2)

    await check_iterator(make, epochs=1)


def cases() -> dict[str, Case]:
    """By class and member; functions by their name."""
    pairs = (["a", "b"], [INPUT, INPUT * 2])
    new = ("new", INPUT)
    return {
        "bind": Case(not_bound, bind, reads=True),
        "Executor.aclose": Case(executor, close),
        "Executor.aux": Case(executor, on_executor("aux"), reads=True),
        "Executor.backward": Case(executor, on_executor("backward")),
        "Executor.forward": Case(executor, forward),
        "Executor.zero_grad": Case(executor, on_executor("zero_grad")),
        "KVStore.barrier": Case(store, on_store("barrier"), reads=True),
        "KVStore.broadcast": Case(
            store,
            lambda subject: subject.store.broadcast(*new, subject.out),
            [on_store("init", *new)],
        ),
        "KVStore.init": Case(store, on_store("init", *new)),
        "KVStore.load_optimizer_states": Case(
            store, with_file("load_optimizer_states", "saved")
        ),
        "KVStore.pull": Case(store, on_store("pull", ["a", "b"], out=True)),
        "KVStore.push": Case(store, on_store("push", *pairs)),
        "KVStore.pushpull": Case(store, on_store("pushpull", *pairs, out=True)),
        "KVStore.row_sparse_pull": Case(store, row_sparse_pull),
        "KVStore.save_optimizer_states": Case(
            store, with_file("save_optimizer_states", "new")
        ),
        "BestParameters.__call__": Case(best, better),
        "BestParameters.restore": Case(best, restore),
        "BestParameters.__aenter__": Case(best, around, [only_restored]),
        "BestParameters.__aexit__": Case(best, around, [only_restored]),
        "check_iterator": Case(nothing_yet, check_one, reads=True),
    }
