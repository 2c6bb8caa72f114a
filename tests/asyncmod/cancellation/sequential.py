"""Cases for SequentialModule: two modules on a device each, and a loss in Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import trio

import asyncmod as mx
from asyncmod.io import DataBatch, DataDesc
from asyncmod.module.batches import Array
from tests.asyncmod.cancellation.module_calls import (
    Stages,
    common_cases,
    first_step,
    forward,
    with_optimizer,
)
from tests.asyncmod.cancellation.module_subject import ModuleSubject
from tests.asyncmod.cancellation.trial import Call, Case

ROWS, FEATURES, CLASSES = 8, 3, 3


def features() -> mx.symbol.Symbol:
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="fc1")
    x = mx.sym.BatchNorm(x, name="bn", fix_gamma=False)
    return mx.sym.Dropout(x, p=0.5, name="dropout")


def scores() -> mx.symbol.Symbol:
    x = mx.sym.Variable("features")
    return mx.sym.FullyConnected(x, num_hidden=CLASSES, name="fc2")


async def gradient(scores: Array, labels: Array) -> Array:
    """Of a squared error; the user's own code, which can be cancelled."""
    await trio.lowlevel.checkpoint()
    return scores - np.eye(CLASSES, dtype=np.float32)[labels.astype(int)]


def batch(seed: int) -> DataBatch:
    random = np.random.default_rng(seed)
    data = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
    return DataBatch([data], [random.integers(0, CLASSES, ROWS).astype(np.float32)])


class ChainStages(Stages):
    """Chains over two devices."""

    def __init__(self, context: list[mx.Context]) -> None:
        super().__init__(self.make)
        self.context = context

    async def make(self, folder: Path) -> ModuleSubject:
        first, last = self.context[0], self.context[-1]
        chain = mx.SequentialModule()
        chain.add(mx.Module(features(), label_names=None, context=first))
        chain.add(
            mx.Module(scores(), ["features"], label_names=None, context=last),
            auto_wiring=True,
        )
        loss = mx.PythonLossModule(grad_func=gradient)
        chain.add(loss, take_labels=True, auto_wiring=True)
        described = (
            [DataDesc("data", (ROWS, FEATURES))],
            [DataDesc("softmax_label", (ROWS,))],
        )
        return ModuleSubject(chain, described, [batch(i) for i in range(4)], folder)


async def unbound(subject: ModuleSubject) -> None:
    """What a `bind` leaves that was cancelled: all values, but not bound."""
    subject.module.binded = False


async def first_forward(subject: ModuleSubject) -> None:
    await subject.module.forward(subject.batches[0], is_train=True)


async def second_forward(subject: ModuleSubject) -> None:
    await first_step(subject)
    await subject.module.forward(subject.batches[1], is_train=True)


def after(*calls: Call) -> Call:
    """Several calls as one."""

    async def call(subject: ModuleSubject) -> None:
        for one in calls:
            await one(subject)

    return call


CUT_SHORT: dict[str, list[Call]] = {
    "fit": [first_forward, second_forward],
    "fit (from nothing)": [
        after(with_optimizer, first_forward),
        after(with_optimizer, second_forward),
    ],
    "step": [forward],
}
"""Where calls stand whose loss was cut short: a forward is behind them."""


def with_waypoints(
    cases: dict[str, Case], more: dict[str, list[Call]]
) -> dict[str, Case]:
    """The cases, some with more waypoints."""
    return {
        name: replace(case, waypoints=[*case.waypoints, *more.get(name, ())])
        for name, case in cases.items()
    }


def cases(context: list[mx.Context]) -> dict[str, Case]:
    """By member; in brackets what sets two cases of a member apart."""
    common = common_cases(ChainStages(context))
    return with_waypoints(common, {**CUT_SHORT, "bind (anew)": [unbound]})
