"""A module of any kind, with all that can be seen of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import asyncmod as mx
from asyncmod.io import DataBatch, DataDesc, DataIter
from tests.asyncmod.cancellation.trial import outcome

Shapes = tuple[list[DataDesc], list[DataDesc]]
SETTINGS = {"learning_rate": 0.5, "momentum": 0.9}
FLAGS = (
    "binded",
    "for_training",
    "inputs_need_grad",
    "params_initialized",
    "optimizer_initialized",
)
DESCRIPTIONS = ("data_shapes", "label_shapes", "output_shapes")
READS = ("get_params", "get_outputs", "get_input_grads", "get_grads", "get_states")


class Batches(DataIter):
    """The same few batches, every epoch."""

    def __init__(self, batches: Sequence[DataBatch], shapes: Shapes) -> None:
        super().__init__(shapes[0][0].shape[0])
        self.provide_data, self.provide_label = shapes
        self._batches = batches
        self._position = 0

    async def next(self) -> DataBatch:
        if self._position == len(self._batches):
            raise StopAsyncIteration
        self._position += 1
        return self._batches[self._position - 1]

    async def reset(self) -> None:
        self._position = 0


class ModuleSubject:
    """A module and its batches; files that it writes belong into `folder`.

    Args:
        module: Any module.
        shapes: What it is bound with.
        batches: Some to train with; the last one is for `go_on`.
        folder: An empty folder.
        options: More that it is bound with.
    """

    def __init__(
        self,
        module: Any,
        shapes: Shapes,
        batches: Sequence[DataBatch],
        folder: Path,
        **options: Any,
    ) -> None:
        self.module = module
        self.shapes = shapes
        self.batches = list(batches[:-1])
        self.folder = folder
        self.metric = mx.metric.create(["acc", "loss"])
        self._last = batches[-1]
        self._bind = {"inputs_need_grad": True, "grad_req": "add", **options}

    @property
    def source(self) -> Batches:
        """The first two batches, as an iterator."""
        return Batches(self.batches[:2], self.shapes)

    async def bind(self) -> None:
        await self.module.bind(*self.shapes, **self._bind)

    async def give_values(self) -> None:
        await self.module.init_params(Numbered(), force_init=True)

    async def install(self) -> None:
        await self.module.init_optimizer(optimizer_params=SETTINGS)

    async def train(self) -> None:
        """From nothing to a module that has made a step, and half another one."""
        await self.bind()
        await self.give_values()
        await self.install()
        await self.module.step(self.batches[0])
        await self.module.forward_backward(self.batches[1])

    async def observe(self) -> Any:
        """All that can be seen; what raises shows the kind of its error."""
        module = self.module
        seen: dict[str, Any] = {flag: getattr(module, flag) for flag in FLAGS}
        for name in DESCRIPTIONS:
            seen[name] = await outcome(reader(module, name))
        for name in READS:
            seen[name] = await outcome(getattr(module, name))
        seen["states"] = await self._optimizer_states()
        seen["key"] = getattr(module, "current_bucket_key", None)
        seen["metric"] = [[m.sum_metric, m.num_inst] for m in self.metric.metrics]
        seen["files"] = {p.name: p.read_bytes() for p in self.folder.iterdir()}
        return seen

    async def go_on(self) -> Any:
        """What may follow a cancelled part of a step, and then a whole step."""
        module = self.module
        if module.scope.closed:
            return "closed"
        if not module.binded:
            await self.bind()
        if not module.params_initialized:
            await self.give_values()
        if not module.optimizer_initialized:
            await self.install()
        await outcome(module.backward)
        await outcome(module.update)
        await module.step(self._last)
        values = await module.get_params()
        return [*values, await module.get_outputs(), await self._optimizer_states()]

    async def aclose(self) -> None:
        await self.module.aclose()

    async def _optimizer_states(self) -> list[Any]:
        """Of each module that has an optimizer, as it is saved."""
        path = self.folder / "observed.states"
        states: list[Any] = []
        for module in parts(self.module):
            failure = await outcome(partial(module.save_optimizer_states, path))
            states.append(failure or path.read_bytes())
            path.unlink(missing_ok=True)
        return states


class Numbered(mx.init.Initializer):
    """Values that differ from element to element, and depend on nothing else."""

    def _init_weight(self, name: Any, array: Any) -> None:
        array[...] = np.sin(np.arange(array.size) + len(name)).reshape(array.shape)


def reader(module: Any, name: str) -> Callable[[], Awaitable[Any]]:
    async def read() -> Any:
        return [list(description) for description in getattr(module, name)]

    return read


def parts(module: Any) -> list[Any]:
    """The modules that have an optimizer."""
    children = [child.module for child in getattr(module, "_children", ())]
    return [m for m in children or [module] if hasattr(m, "save_optimizer_states")]
