"""Cases for Module: a net with running statistics, states and random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import asyncmod as mx
from asyncmod.io import DataBatch, DataDesc
from tests.asyncmod.cancellation.module_calls import (
    Stages,
    bind_anew,
    common_cases,
    loading,
    member,
    saving,
    step,
)
from tests.asyncmod.cancellation.module_subject import ModuleSubject
from tests.asyncmod.cancellation.trial import Case

ROWS, FEATURES, CLASSES = 8, 3, 3


def net() -> mx.symbol.Symbol:
    memory = mx.sym.Variable("memory")
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="fc1")
    x = mx.sym.BatchNorm(x, name="bn", fix_gamma=False)
    x = mx.sym.elemwise_add(x, memory, name="add")
    x = mx.sym.Dropout(x, p=0.5, name="dropout")
    x = mx.sym.FullyConnected(x, num_hidden=CLASSES, name="fc2")
    return mx.sym.SoftmaxOutput(x, name="softmax")


def shapes(rows: int = ROWS) -> tuple[list[DataDesc], list[DataDesc]]:
    return [DataDesc("data", (rows, FEATURES))], [DataDesc("softmax_label", (rows,))]


def batch(seed: int, rows: int = ROWS) -> DataBatch:
    random = np.random.default_rng(seed)
    data = random.normal(size=(rows, FEATURES)).astype(np.float32)
    return DataBatch([data], [random.integers(0, CLASSES, rows).astype(np.float32)])


class ModuleStages(Stages):
    """Modules on some devices, also from checkpoints."""

    def __init__(self, context: list[mx.Context]) -> None:
        super().__init__(self.make)
        self.context = context

    async def make(self, folder: Path) -> ModuleSubject:
        module = mx.Module(net(), context=self.context, state_names=["memory"])
        return self.subject(module, folder)

    def subject(self, module: mx.Module, folder: Path) -> ModuleSubject:
        return ModuleSubject(module, shapes(), [batch(i) for i in range(4)], folder)

    async def with_checkpoint(self, folder: Path) -> ModuleSubject:
        """Trained, saved, and trained further."""
        subject = await self.trained(folder)
        prefix = folder / "saved"
        await subject.module.save_checkpoint(prefix, 3, save_optimizer_states=True)
        await step(subject)
        return subject

    async def loaded(self, folder: Path) -> ModuleSubject:
        """A new module from a checkpoint, bound."""
        saved = await self.with_checkpoint(folder)
        await saved.aclose()
        module = await mx.Module.load(
            folder / "saved",
            3,
            load_optimizer_states=True,
            context=self.context,
            state_names=["memory"],
        )
        subject = self.subject(module, folder)
        await subject.bind()
        return subject


async def load(subject: ModuleSubject) -> None:
    prefix = subject.folder / "saved"
    await mx.Module.load(prefix, 3, load_optimizer_states=True, state_names=["memory"])


async def overwrite(subject: ModuleSubject) -> None:
    prefix = subject.folder / "saved"
    await subject.module.save_checkpoint(prefix, 3, save_optimizer_states=True)


async def larger(subject: ModuleSubject) -> None:
    """A batch of a size that is new to the module."""
    await subject.module.forward(batch(9, ROWS + 2), is_train=True)


def cases(context: list[mx.Context]) -> dict[str, Case]:
    """By member; in brackets what sets two cases of a member apart."""
    stages = ModuleStages(context)
    trained, saved = stages.trained, stages.with_checkpoint
    return {
        **common_cases(stages),
        "bind (loaded)": Case(stages.loaded, bind_anew),
        "forward (another size)": Case(trained, larger),
        "init_optimizer (loaded)": Case(stages.loaded, ModuleSubject.install),
        "load": Case(saved, load, reads=True),
        "load_optimizer_states": Case(
            saved, loading("load_optimizer_states", "saved-0003.states")
        ),
        "reshape": Case(trained, member("reshape", *shapes(ROWS + 2))),
        "save_checkpoint": Case(trained, saving("save_checkpoint", 4, True)),
        "save_checkpoint (over another)": Case(saved, overwrite),
        "save_optimizer_states": Case(trained, saving("save_optimizer_states")),
        "set_states": Case(trained, member("set_states", value=2.0)),
    }
