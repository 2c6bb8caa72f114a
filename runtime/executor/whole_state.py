"""The whole state of training, copied from the devices and put back.

Next: `runtime.executor.snapshot` for what a copy is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.executor.access import Access
from runtime.executor.checks import check_arrays
from runtime.executor.collective import Update
from runtime.executor.row_sparse import write_gradient
from runtime.executor.snapshot import (
    Carried,
    Snapshot,
    StateArray,
    copy_from,
    sources,
)
from runtime.executor.staged import AnyReplica
from runtime.row_sparse import RowSparseNDArray

Array = NDArray[Any]


class WholeState:
    """See the module."""

    def __init__(self, access: Access, gradient_names: Sequence[str]) -> None:
        self._access = access
        self._memory = access.memory
        self._gradient_names = gradient_names

    async def copy(
        self,
        update: Update | None,
        place: Callable[[StateArray], Array],
        added: Collection[str],
    ) -> list[Carried]:
        """Copy the state of training into arrays that `place` gives.

        Args:
            update: Whose states to copy.
            place: Gives the arrays.
            added: The parameters whose gradients are carried on.

        Returns:
            What each share of the batch carries on.
        """
        there = sources(self._memory, update)
        targets = {array: place(array) for array in there}
        placement = self._memory.placement

        def run(replica: AnyReplica) -> Carried:
            index = replica.index
            copy_from(index, there, targets)
            kept = [n for n in self._gradient_names if n in added]
            return Carried(
                replica.states.held(),
                {n: replica.gradient(n) for n in kept if placement.holds(index, n)},
            )

        parts = await self._access.each("copy state", run)
        states = self._access.by_share([part.states for part in parts])
        gradients = self._access.by_share([part.gradients for part in parts])
        return [Carried(*share) for share in zip(states, gradients, strict=True)]

    async def snapshot(self, update: Update, at_once: Callable[[], None]) -> Snapshot:
        """Copy parameters, auxiliary states and optimizer states by one command.

        Args:
            update: Whose states to copy.
            at_once: Called as the command is enqueued, on the Trio thread; for an
                optimizer without a rule as the command runs, on the first device's.
        """
        has_rule = update.updater.rule is not None
        there = sources(self._memory, update if has_rule else None)
        targets = {array: np.empty(array.shape, array.dtype) for array in there}
        copied = Snapshot()

        def run(replica: AnyReplica) -> None:
            copy_from(replica.index, there, targets)
            if replica.index == 0 and not has_rule:
                at_once()
                copied.of_function = update.reduction.read_states()

        await self._access.each(
            "copy state", run, at_once=at_once if has_rule else None
        )
        members, trained = self._memory.placement.members, self._memory.trained
        counting = {m.share for m, t in zip(members, trained, strict=True) if t}
        shares: dict[int, dict[str, Array]] = {s: {} for s in sorted(counting) or [0]}
        for array, values in targets.items():
            if array.kind == "parameter":
                copied.parameters[array.name] = values
            elif array.kind != "auxiliary":
                copied.of_rule.setdefault(array.kind, {})[array.name] = values
            elif array.share in shares:
                shares[array.share][array.name] = values
        copied.auxiliaries = list(shares.values())
        return copied

    async def write_carried(self, shares: Sequence[Carried]) -> None:
        """Let each share of the batch carry this on."""
        placement, rows = self._memory.placement, self._memory.gradient_rows.tensors
        tensors = self._memory.parameters.tensors
        shapes = {n: tensors[n].shape for n in self._gradient_names if n not in rows}
        dense = [
            check_arrays(
                "gradient",
                {n: g for n, g in s.gradients.items() if isinstance(g, np.ndarray)},
                shapes,
            )
            for s in shares
        ]

        def run(replica: AnyReplica) -> None:
            index = replica.index
            share = placement.members[index].share
            replica.states.hold(shares[share].states)
            for name, gradient in shares[share].gradients.items():
                if not placement.holds(index, name):
                    continue
                if isinstance(gradient, RowSparseNDArray):
                    write_gradient(replica.storage, name, gradient)
                else:
                    replica.storage.write("gradient", name, dense[share][name])
                self._memory.gradients_zero[index] = False

        await self._access.each("write states", run)
