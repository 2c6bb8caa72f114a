"""Cases for BucketingModule: three buckets, the third of which is new to the calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import asyncmod as mx
from asyncmod.io import DataBatch, DataDesc
from tests.asyncmod.cancellation.module_calls import (
    Stages,
    common_cases,
    loading,
    saving,
    step,
)
from tests.asyncmod.cancellation.module_subject import ModuleSubject
from tests.asyncmod.cancellation.trial import Case

ROWS, WORDS, CLASSES = 8, 6, 3
DEFAULT, OTHER, NEW = 4, 2, 3


def unrolled(length: int) -> tuple[mx.symbol.Symbol, list[str], list[str]]:
    """A class for the sum of all words of a sentence."""
    x = mx.sym.Variable("data")
    x = mx.sym.sum(x, axis=1, name="sum")
    x = mx.sym.FullyConnected(x, num_hidden=4, name="words")
    x = mx.sym.BatchNorm(x, name="bn", fix_gamma=False)
    x = mx.sym.Dropout(x, p=0.5, name="dropout")
    x = mx.sym.FullyConnected(x, num_hidden=CLASSES, name="fc")
    return mx.sym.SoftmaxOutput(x, name="softmax"), ["data"], ["softmax_label"]


def shapes(length: int) -> tuple[list[DataDesc], list[DataDesc]]:
    return [DataDesc("data", (ROWS, length, WORDS))], [
        DataDesc("softmax_label", (ROWS,))
    ]


def batch(seed: int, length: int) -> DataBatch:
    random = np.random.default_rng(seed)
    data, label = shapes(length)
    return DataBatch(
        [random.normal(size=data[0].shape).astype(np.float32)],
        [random.integers(0, CLASSES, ROWS).astype(np.float32)],
        bucket_key=length,
        provide_data=data,
        provide_label=label,
    )


class BucketStages(Stages):
    """Modules on some devices."""

    def __init__(self, context: list[mx.Context]) -> None:
        super().__init__(self.make)
        self.context = context

    async def make(self, folder: Path) -> ModuleSubject:
        module = mx.BucketingModule(unrolled, DEFAULT, context=self.context)
        lengths = enumerate((DEFAULT, OTHER, NEW, OTHER))
        batches = [batch(seed, length) for seed, length in lengths]
        return ModuleSubject(module, shapes(DEFAULT), batches, folder)

    async def with_checkpoint(self, folder: Path) -> ModuleSubject:
        subject = await self.trained(folder)
        await subject.module.save_checkpoint(folder / "saved", 3)
        await subject.module.save_optimizer_states(folder / "saved.states")
        await step(subject)
        return subject


async def switch_bucket(subject: ModuleSubject) -> None:
    await subject.module.switch_bucket(NEW, *shapes(NEW))


async def load(subject: ModuleSubject) -> None:
    prefix = subject.folder / "saved"
    await mx.BucketingModule.load(
        prefix, 3, sym_gen=unrolled, default_bucket_key=DEFAULT
    )


async def overwrite(subject: ModuleSubject) -> None:
    await subject.module.save_checkpoint(subject.folder / "saved", 3)


def cases(context: list[mx.Context]) -> dict[str, Case]:
    """By member; in brackets what sets two cases of a member apart."""
    stages = BucketStages(context)
    trained, saved = stages.trained, stages.with_checkpoint
    changed: dict[str, Any] = {
        "load": Case(saved, load, reads=True),
        "load_optimizer_states": Case(
            saved, loading("load_optimizer_states", "saved.states")
        ),
        "save_checkpoint": Case(trained, saving("save_checkpoint", 4)),
        "save_checkpoint (over another)": Case(saved, overwrite),
        "save_optimizer_states": Case(trained, saving("save_optimizer_states")),
        "switch_bucket": Case(trained, switch_bucket),
    }
    return common_cases(stages) | changed
