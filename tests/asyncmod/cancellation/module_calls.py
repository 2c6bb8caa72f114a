"""Calls that modules of every kind have, and the cases they make."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from asyncmod.io import DataDesc
from tests.asyncmod.cancellation.module_subject import (
    SETTINGS,
    Batches,
    ModuleSubject,
    Numbered,
)
from tests.asyncmod.cancellation.trial import Call, Case

Make = Callable[[Path], Awaitable[ModuleSubject]]


class Stages:
    """Subjects of one kind, from an unbound one on.

    Args:
        unbound: Makes one that is not bound.
    """

    def __init__(self, unbound: Make) -> None:
        self.unbound = unbound

    async def bound(self, folder: Path) -> ModuleSubject:
        subject = await self.unbound(folder)
        await subject.bind()
        return subject

    async def with_values(self, folder: Path) -> ModuleSubject:
        subject = await self.bound(folder)
        await subject.give_values()
        return subject

    async def trained(self, folder: Path) -> ModuleSubject:
        subject = await self.unbound(folder)
        await subject.train()
        return subject

    async def saved(self, folder: Path) -> ModuleSubject:
        """Trained, its values saved, and trained further."""
        subject = await self.trained(folder)
        await subject.module.save_params(folder / "saved.params")
        await step(subject)
        return subject


def common_cases(stages: Stages) -> dict[str, Case]:
    """By member; in brackets what sets two cases of a member apart."""
    trained = stages.trained
    reads: dict[str, Call] = {
        **{name: member(name) for name in READING},
        "iter_predict": iter_predict,
        "predict": predict,
        "predict_every_batch": predict_every_batch,
        "prepare": prepare,
        "score": score,
    }
    return {
        "__aenter__": Case(trained, use, [member("aclose")]),
        "__aexit__": Case(trained, use, [member("aclose")]),
        "aclose": Case(trained, member("aclose")),
        "backward": Case(trained, member("backward")),
        "bind": Case(stages.unbound, ModuleSubject.bind),
        "bind (anew)": Case(trained, bind_anew),
        "fit": Case(trained, fit, [first_step, two_steps]),
        "fit (from nothing)": Case(stages.unbound, fit, FROM_NOTHING),
        "forward": Case(trained, forward),
        "forward (inference)": Case(trained, infer),
        "forward_backward": Case(trained, forward_backward, [forward]),
        "init_optimizer": Case(stages.with_values, ModuleSubject.install),
        "init_optimizer (anew)": Case(trained, init_optimizer_anew),
        "init_params": Case(stages.bound, ModuleSubject.give_values),
        "init_params (anew)": Case(trained, ModuleSubject.give_values),
        "load_params": Case(stages.saved, loading("load_params", "saved.params")),
        "save_params": Case(trained, saving("save_params")),
        "set_params": Case(trained, set_params),
        "set_states": Case(trained, member("set_states", [])),
        "step": Case(trained, step),
        "update": Case(trained, member("update")),
        "update_metric": Case(trained, update_metric),
        "zero_grad": Case(trained, member("zero_grad")),
        **{name: Case(trained, call, reads=True) for name, call in reads.items()},
    }


READING = (
    "get_grads",
    "get_input_grads",
    "get_input_grads_merged",
    "get_outputs",
    "get_outputs_merged",
    "get_params",
    "get_states",
)


def member(name: str, *arguments: Any, **options: Any) -> Call:
    """A call of a member of the subject's module."""

    async def call(subject: ModuleSubject) -> object:
        return await getattr(subject.module, name)(*arguments, **options)

    return call


async def use(subject: ModuleSubject) -> None:
    """The module in a scope."""
    async with subject.module as module:
        await module.step(subject.batches[0])


async def forward(subject: ModuleSubject) -> None:
    await subject.module.forward(subject.batches[2], is_train=True)


async def infer(subject: ModuleSubject) -> None:
    await subject.module.forward(subject.batches[2], is_train=False)


async def forward_backward(subject: ModuleSubject) -> None:
    await subject.module.forward_backward(subject.batches[2])


async def step(subject: ModuleSubject) -> None:
    await subject.module.step(subject.batches[2])


async def prepare(subject: ModuleSubject) -> None:
    await subject.module.prepare(subject.batches[2])


async def update_metric(subject: ModuleSubject) -> None:
    label = subject.batches[1].label
    await subject.module.update_metric(subject.metric, label)


async def score(subject: ModuleSubject) -> None:
    await subject.module.score(subject.source, "acc")


async def predict(subject: ModuleSubject) -> None:
    await subject.module.predict(subject.source)


async def predict_every_batch(subject: ModuleSubject) -> None:
    await subject.module.predict_every_batch(subject.source)


async def iter_predict(subject: ModuleSubject) -> None:
    async for _ in subject.module.iter_predict(subject.source):
        pass


async def bind_anew(subject: ModuleSubject) -> None:
    data, labels = ([half(d) for d in part] for part in subject.shapes)
    await subject.module.bind(data, labels, force_rebind=True)


async def init_optimizer_anew(subject: ModuleSubject) -> None:
    settings = {"learning_rate": 0.25, "momentum": 0.5}
    await subject.module.init_optimizer(optimizer_params=settings, force_init=True)


async def fit(subject: ModuleSubject) -> None:
    """Two batches; after them replicas are brought together."""
    await subject.module.fit(
        Batches(subject.batches[:2], subject.shapes),
        eval_metric="loss",
        num_epoch=1,
        initializer=Numbered(),
        optimizer_params=SETTINGS,
    )


async def first_step(subject: ModuleSubject) -> None:
    await subject.module.step(subject.batches[0])


async def two_steps(subject: ModuleSubject) -> None:
    for given in subject.batches[:2]:
        await subject.module.step(given)


def half(description: DataDesc) -> DataDesc:
    """The same input with half the rows."""
    rows, *rest = description.shape
    name, dtype, layout = description.name, description.dtype, description.layout
    return DataDesc(name, (rows // 2, *rest), dtype, layout)


async def set_params(subject: ModuleSubject) -> None:
    """Twice all values."""
    values = await subject.module.get_params()
    doubled = ({n: 2 * v for n, v in part.items()} for part in values)
    await subject.module.set_params(*doubled)


def saving(name: str, *arguments: object) -> Call:
    """A call that writes into the subject's folder."""

    async def call(subject: ModuleSubject) -> None:
        await getattr(subject.module, name)(subject.folder / "new", *arguments)

    return call


def loading(name: str, file: str) -> Call:
    """A call that reads a file of the subject's folder."""

    async def call(subject: ModuleSubject) -> None:
        await getattr(subject.module, name)(subject.folder / file)

    return call


async def bound_by_fit(subject: ModuleSubject) -> None:
    await subject.module.bind(*subject.shapes)


async def with_values(subject: ModuleSubject) -> None:
    await bound_by_fit(subject)
    await subject.module.init_params(Numbered())


async def with_optimizer(subject: ModuleSubject) -> None:
    await with_values(subject)
    await subject.module.init_optimizer(optimizer_params=SETTINGS)


async def after_one(subject: ModuleSubject) -> None:
    await with_optimizer(subject)
    await first_step(subject)


async def after_two(subject: ModuleSubject) -> None:
    await with_optimizer(subject)
    await two_steps(subject)


FROM_NOTHING = [bound_by_fit, with_values, with_optimizer, after_one, after_two]
