"""An optimizer that is installed in a module, and its states.

The states live with the executors; while there are none that could hold them (a module
bound for inference), they are kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike, fspath
from typing import Any

import numpy as np
import trio

from asyncmod.interop.mxnet_states import is_pickle
from asyncmod.module import mxnet_states, optimizer_setup, optimizer_states
from asyncmod.module.batches import Array
from asyncmod.module.descriptions import batch_size
from asyncmod.module.executors import Executors
from asyncmod.optimizer import Optimizer, OptimizerStatesError
from runtime.executor.accumulation import Part
from runtime.executor.group import Updater
from runtime.executor.snapshot import Snapshot
from runtime.graph.plan import HALF
from runtime.graph.update import MASTER


@dataclass
class States:
    """What an optimizer keeps.

    Attributes:
        of_rule: The states of its rule, by state name and parameter.
        of_function: By parameter what the user's own `update` keeps.
    """

    of_rule: dict[str, dict[str, Array]] = field(default_factory=dict)
    of_function: dict[str, Any] = field(default_factory=dict)


@dataclass
class Optimization:
    """See the module.

    Attributes:
        optimizer: What the user chose.
        updater: What the executors are told of it.
        idx2name: Parameter name by the optimizer's index.
        kept: The states, while no executors hold them.
        parts: The same optimizer over some of the parameters.
    """

    optimizer: Optimizer
    updater: Updater
    idx2name: Mapping[int, str]
    kept: States = field(default_factory=States)
    parts: dict[tuple[str, ...], Optimization] = field(default_factory=dict)

    @classmethod
    async def install(
        cls,
        executors: Executors,
        symbol: Any,
        parameter_names: list[str],
        kvstore: Any,
        optimizer: Any,
        optimizer_params: Any,
    ) -> Optimization:
        """Check the arguments of `init_optimizer` and prepare the executors.

        Raises:
            ArgumentTypeError, ArgumentError, OptimizerError, UnsupportedError: see
                `asyncmod.module.optimizer_setup`.
        """
        optimizer_setup.check_kvstore(kvstore)
        shapes = executors.first.group.parameter_shapes
        idx2name = optimizer_setup.index_names(
            kvstore,
            parameter_names,
            {name: int(np.prod(shape)) for name, shape in shapes.items()},
            len(executors.template.devices),
        )
        current = executors.current
        made = optimizer_setup.make_optimizer(
            optimizer,
            optimizer_params,
            symbol,
            idx2name,
            batch_size([*current.data, *current.labels]),
        )
        return await cls._prepared(executors, made, idx2name, States())

    def updater_for(self, part: Part | None) -> Updater:
        """The updater of a step; of one that adds gradients up if it is a part."""
        return self.updater if part is None else self.accumulating

    @cached_property
    def accumulating(self) -> Updater:
        """The updater of steps whose gradients add up over several batches.

        It updates all that the optimizer updates, whatever graph the batches ran.
        """
        whole = self.updater.shares or self.updater
        return replace(whole, shares=whole, accumulates=self.updater.parameters)

    def part(self, names: Collection[str]) -> Optimization:
        """The same optimizer, with the same states, for a graph with fewer parameters.

        Args:
            names: The parameters of the graph.
        """
        updated = tuple(n for n in self.updater.parameters if n in names)
        if updated == self.updater.parameters:
            return self
        if updated not in self.parts:
            indexes: dict[str, int] = {}
            for index, name in self.idx2name.items():
                if name in updated:
                    indexes.setdefault(name, index)
            updater = optimizer_setup.make_updater(
                self.optimizer, indexes, MASTER in self.updater.states, self.updater
            )
            self.parts[updated] = Optimization(self.optimizer, updater, self.idx2name)
        return self.parts[updated]

    async def moved(self, old: Executors, new: Executors) -> Optimization:
        """The same optimizer over other executors, with its states."""
        states = await self._read(old)
        return await self._prepared(new, self.optimizer, self.idx2name, states)

    @classmethod
    async def _prepared(
        cls,
        executors: Executors,
        optimizer: Optimizer,
        idx2name: Mapping[int, str],
        states: States,
    ) -> Optimization:
        gradients = executors.template.gradients
        indexes: dict[str, int] = {}
        for index, name in idx2name.items():
            if gradients[name] != "null":
                indexes.setdefault(name, index)
        dtypes = executors.first.group.parameter_dtypes
        has_float16 = any(dtypes[name] == "float16" for name in indexes)
        updater = optimizer_setup.make_updater(optimizer, indexes, has_float16)
        result = cls(optimizer, updater, idx2name)
        await result.write(executors, states)
        return result

    async def write(
        self,
        executors: Executors,
        states: States,
        recount: Callable[[], None] | None = None,
    ) -> None:
        """Give the states to the executors, or keep them while none can hold them.

        Args:
            executors: Those of the module.
            states: What they are to hold.
            recount: Sets the optimizer's counts at the same moment.
        """
        if not executors.template.for_training:
            if recount is not None:
                recount()
            self.kept = states
            return
        group = executors.first.group
        await group.prepare(self.updater)
        updated = self.updater.parameters
        known = {
            state: {n: a for n, a in arrays.items() if n in updated}
            for state, arrays in states.of_rule.items()
            if state in self.updater.states
        }
        if self.updater.rule is not None and (known or recount is not None):
            await group.write_updater_states(self.updater, known, recount)
        own = {n: state for n, state in states.of_function.items() if n in updated}
        if self.updater.rule is None and (own or recount is not None):
            await group.write_function_states(self.updater, own, recount)
        self.kept = States()

    async def _read(self, executors: Executors) -> States:
        if not executors.template.for_training:
            return self.kept
        group = executors.first.group
        if self.updater.rule is None:
            return States({}, await group.read_function_states(self.updater))
        return States(await group.read_updater_states(self.updater), {})

    async def save(self, executors: Executors, fname: str | PathLike[str]) -> None:
        """Write counts and states to a file, which appears whole or not at all.

        Raises:
            OptimizerStatesError: see `content`.
            OSError: the file cannot be written.
        """
        content = await self.content(executors)
        await trio.to_thread.run_sync(optimizer_states.write, fname, content)

    async def content(self, executors: Executors) -> optimizer_states.Content:
        """What a file of counts and states holds now.

        Raises:
            OptimizerStatesError: the user's own optimizer keeps something else than
                arrays, numbers, texts, and tuples, lists and dicts of these.
        """
        return (await self.snapshot(executors))[1]

    async def snapshot(
        self, executors: Executors
    ) -> tuple[Snapshot, optimizer_states.Content]:
        """Parameters and the content of a file, as they stand between two steps."""
        settings: dict[str, Any] = {}

        def count() -> None:
            settings.update(self.optimizer.get_state())

        if executors.template.for_training:
            copied = await executors.first.group.snapshot(self.updater, count)
        else:
            parameters, auxiliaries = await executors.first.group.read_parameters()
            kept = self.kept
            copied = Snapshot(parameters, [auxiliaries], kept.of_rule, kept.of_function)
            count()
        content = optimizer_states.Content(
            type(self.optimizer).__name__.lower(),
            settings,
            copied.of_rule,
            copied.of_function,
        )
        return copied, content

    def _read_file(
        self, executors: Executors, fname: str | PathLike[str]
    ) -> optimizer_states.Content:
        if not is_pickle(fname):
            return optimizer_states.read(fname, self.optimizer)
        group = executors.first.group
        updated, dtypes = self.updater.parameters, group.parameter_dtypes
        has_masters = MASTER in self.updater.states
        return mxnet_states.read(
            fname,
            self.optimizer,
            list(dict.fromkeys(name for _, name in sorted(self.idx2name.items()))),
            {name: group.parameter_shapes[name] for name in updated},
            [n for n in updated if has_masters and dtypes[n] == HALF],
        )

    async def load(self, executors: Executors, fname: str | PathLike[str]) -> None:
        """Set counts and states from such a file between two steps, whole or not.

        Learning rate, schedule and `rescale_grad` stay as they are; with a file of
        MXNet, which has no counts, these stay, too.

        Raises:
            OptimizerStatesError: the file is not of this format, or of another kind
                of optimizer.
            OSError: it cannot be read.
        """
        content = await trio.to_thread.run_sync(self._read_file, executors, fname)

        def recount() -> None:
            if content.settings is None:
                return
            before = self.optimizer.get_state()
            try:
                self.optimizer.go_on_from(content.settings)
            except BaseException:
                self.optimizer.set_state(before)
                raise

        states = States(content.states, content.own)
        try:
            await self.write(executors, states, recount)
        except (KeyError, TypeError, ValueError) as error:
            raise OptimizerStatesError(
                f"{fspath(fname)} holds states that do not fit this module: {error}"
            ) from error
