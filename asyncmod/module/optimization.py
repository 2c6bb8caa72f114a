"""An optimizer that is installed in a module, and its states.

The states live with the executors; while there are none that could hold them (a module
bound for inference), they are kept here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import trio

from asyncmod.errors import UnsupportedError
from asyncmod.module import optimizer_setup, optimizer_states
from asyncmod.module.batches import Array
from asyncmod.module.descriptions import batch_size
from asyncmod.module.executors import Executors
from asyncmod.optimizer import Optimizer, OptimizerStatesError
from runtime.executor.group import Updater

States = dict[str, dict[str, Array]]


@dataclass
class Optimization:
    """See the module.

    Attributes:
        optimizer: What the user chose.
        updater: What the executors are told of it.
        idx2name: Parameter name by the optimizer's index.
        kept: States by state name and parameter, while no executors hold them.
        parts: The same optimizer over some of the parameters.
    """

    optimizer: Optimizer
    updater: Updater
    idx2name: Mapping[int, str]
    kept: States = field(default_factory=dict)
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
        return await cls._prepared(executors, made, idx2name, {})

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
                self.optimizer, indexes, self.updater.rule is None, self.updater
            )
            self.parts[updated] = Optimization(self.optimizer, updater, self.idx2name)
        return self.parts[updated]

    async def moved(self, old: Executors, new: Executors) -> Optimization:
        """The same optimizer over other executors, with its states."""
        states = self.kept
        if old.template.for_training and self.updater.rule is not None:
            states = await old.first.group.read_updater_states(self.updater)
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
        await result._write(executors, states)
        return result

    async def _write(self, executors: Executors, states: States) -> None:
        if not executors.template.for_training:
            self.kept = states
            return
        group = executors.first.group
        await group.prepare(self.updater)
        known = {
            state: {n: a for n, a in arrays.items() if n in self.updater.parameters}
            for state, arrays in states.items()
            if state in self.updater.states
        }
        if known:
            await group.write_updater_states(self.updater, known)
        self.kept = {}

    async def save(self, executors: Executors, fname: str | PathLike[str]) -> None:
        """Write counts and states to a file, which appears whole or not at all.

        Raises:
            UnsupportedError: the optimizer is the user's own, without a fused rule.
            OSError: the file cannot be written.
        """
        if self.updater.rule is None:
            raise UnsupportedError(
                f"states of {type(self.optimizer).__name__} cannot be saved: it has no "
                "fused rule (`Optimizer.rule`) that says what they are"
            )
        states = self.kept
        if executors.template.for_training:
            states = await executors.first.group.read_updater_states(self.updater)
        content = optimizer_states.collect(self.optimizer, states)

        def write() -> None:
            beside = Path(f"{fspath(fname)}.partial")
            beside.write_bytes(optimizer_states.dumps(content))
            beside.replace(fname)

        await trio.to_thread.run_sync(write)

    async def load(self, executors: Executors, fname: str | PathLike[str]) -> None:
        """Set counts and states from such a file; whole or not at all.

        Raises:
            OptimizerStatesError: the file is not of this format, or of another kind
                of optimizer.
            OSError: it cannot be read.
        """
        data = await trio.to_thread.run_sync(Path(fname).read_bytes)
        content = await trio.to_thread.run_sync(
            optimizer_states.loads, data, self.optimizer
        )
        before = self.optimizer.get_state()
        try:
            self.optimizer.set_state(content.settings)
            await self._write(executors, content.states)
        except BaseException as error:
            self.optimizer.set_state(before)
            if isinstance(error, KeyError | TypeError | ValueError):
                raise OptimizerStatesError(
                    f"{fspath(fname)} holds states that do not fit this module: {error}"
                ) from error
            raise
