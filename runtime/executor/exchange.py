"""Arrays between the host and the devices: parameters, gradients, states.

Everything is read, merged and written on the device threads; results are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.actors.barrier import Barrier
from runtime.errors import ShapeError
from runtime.executor.binding import Binding
from runtime.executor.calls import Calls
from runtime.executor.collective import Update
from runtime.executor.dispatch import COPY_LIMIT
from runtime.executor.merging import Merge
from runtime.executor.row_sparse import Gradient, write_gradient
from runtime.executor.snapshot import (
    Carried,
    Snapshot,
    StateArray,
    copy_from,
    sources,
)
from runtime.executor.split import is_empty
from runtime.executor.staged import AnyReplica
from runtime.executor.sums import mean, summed
from runtime.executor.updater import nothing
from runtime.graph.ir import Shape
from runtime.row_sparse import RowSparseNDArray

Array = NDArray[Any]
Arrays = dict[str, Array]
Gradients = dict[str, Gradient]
T = TypeVar("T")
R = TypeVar("R")


class Exchange:
    """What `ExecutorGroup` reads and writes besides inputs and outputs."""

    def __init__(self, calls: Calls, binding: Binding) -> None:
        self._calls = calls
        self._memory = binding.memory
        self._replicas = binding.replicas
        dense = binding.plan.tensors.get("gradient", {})
        row_sparse = binding.plan.tensors.get("gradient_rows", {})
        self._gradient_names = tuple(
            name
            for name in self._memory.parameters.tensors
            if name in dense or name in row_sparse
        )
        layouts = (self._memory.parameters, self._memory.auxiliaries)
        self._inline = self._memory.storage[0].inline
        self._cheap = self._is_cheap(sum(layout.nbytes for layout in layouts))

    async def merged(
        self, merge: Merge, read: Callable[[AnyReplica, str], Array]
    ) -> list[Array]:
        """Tensors put together from the parts that every device reads."""
        merged = merge.allocate()
        jobs = [
            partial(merge.fill, replica.index, merged, partial(read, replica))
            for replica in self._replicas
        ]
        await self._calls.run("read", jobs, cheap=self._is_cheap(merge.nbytes))
        return merged

    async def parts(
        self, names: Sequence[str], read: Callable[[AnyReplica, str], Array]
    ) -> list[list[Array]]:
        """The active devices' parts: [name][device]."""

        def run(replica: AnyReplica) -> list[Array]:
            return [] if replica.is_idle else [read(replica, name) for name in names]

        jobs = [partial(run, replica) for replica in self._replicas]
        parts = await self._calls.run("read", jobs, cheap=False)
        active = [
            part for r, part in zip(self._replicas, parts, strict=True) if not r.is_idle
        ]
        return [[part[k] for part in active] for k in range(len(names))]

    async def gradients(self) -> Gradients:
        """Gradients of the parameters, summed over the devices."""

        def total(parts: list[Gradients]) -> Gradients:
            return {n: summed(column) for n, column in self._columns(parts).items()}

        return await self._gather(self._read_gradients, total)

    async def device_gradients(self) -> dict[str, list[Gradient]]:
        """Gradients of the parameters per active device."""

        def run(replica: AnyReplica) -> Gradients:
            return {} if is_empty(replica.rows) else self._read_gradients(replica)

        jobs = [partial(run, replica) for replica in self._replicas]
        return self._columns(await self._calls.run("read", jobs, cheap=False))

    async def zero_gradients(self) -> None:
        """Set all gradients to zero."""
        jobs = [replica.zero_gradients for replica in self._replicas]
        await self._calls.run("zero gradients", jobs, cheap=self._cheap)

    async def read_parameters(
        self, names: Sequence[str], auxiliary_names: Sequence[str]
    ) -> tuple[Arrays, Arrays]:
        """The first device's parameters, the mean of the auxiliary states."""
        trained = [i for i, has_rows in enumerate(self._memory.trained) if has_rows]

        placement = self._memory.placement

        def read(replica: AnyReplica) -> tuple[Arrays, Arrays]:
            storage, index = replica.storage, replica.index
            own = [n for n in names if placement.holder(n) == index]
            kept = [n for n in auxiliary_names if placement.holds(index, n)]
            return (
                {n: storage.read("parameter", n) for n in own},
                {n: storage.read("auxiliary", n) for n in kept},
            )

        def combine(parts: list[tuple[Arrays, Arrays]]) -> tuple[Arrays, Arrays]:
            found = {n: array for own, _ in parts for n, array in own.items()}
            states = {}
            for name in auxiliary_names:
                of = [i for i in trained if name in parts[i][1]]
                of = of or [placement.holder(name)]
                states[name] = mean([parts[i][1][name] for i in of])
            return {name: found[name] for name in names}, states

        return await self._gather(read, combine)

    async def read_device_auxiliaries(self, names: Sequence[str]) -> list[Arrays]:
        """The auxiliary states of each share of the batch."""
        placement = self._memory.placement

        def read(replica: AnyReplica) -> Arrays:
            kept = [n for n in names if placement.holds(replica.index, n)]
            return {n: replica.storage.read("auxiliary", n) for n in kept}

        jobs = [partial(read, replica) for replica in self._replicas]
        parts = await self._calls.run("read", jobs, cheap=self._cheap)
        shares: dict[int, Arrays] = {}
        for member, part in zip(placement.members, parts, strict=True):
            shares.setdefault(member.share, {}).update(part)
        return list(shares.values())

    async def copy_state(
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

        jobs = [partial(run, replica) for replica in self._replicas]
        parts = await self._calls.run("copy state", jobs, cheap=self._cheap)
        shares: dict[int, Carried] = {}
        for member, part in zip(placement.members, parts, strict=True):
            share = shares.setdefault(member.share, Carried())
            share.states.update(part.states)
            share.gradients.update(part.gradients)
        return list(shares.values())

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

        jobs = [partial(run, replica) for replica in self._replicas]
        await self._calls.run(
            "copy state",
            jobs,
            cheap=self._cheap,
            at_once=at_once if has_rule else None,
        )
        members, trained = self._memory.placement.members, self._memory.trained
        counting = {m.share for m, t in zip(members, trained, strict=True) if t}
        shares: dict[int, Arrays] = {s: {} for s in sorted(counting) or [0]}
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

        jobs = [partial(run, replica) for replica in self._replicas]
        await self._calls.run("write states", jobs, cheap=self._cheap)

    async def write_share_auxiliaries(self, values: Sequence[Arrays]) -> None:
        """Set the auxiliary states of each share of the batch."""
        placement = self._memory.placement

        def run(replica: AnyReplica) -> None:
            index = replica.index
            for name, value in values[placement.members[index].share].items():
                if placement.holds(index, name):
                    replica.storage.write("auxiliary", name, value)

        jobs = [partial(run, replica) for replica in self._replicas]
        await self._calls.run("write states", jobs, cheap=self._cheap)

    async def write_parameters(self, parameters: Arrays, auxiliaries: Arrays) -> None:
        """Set parameters while no device reads them, auxiliary states everywhere."""
        memory = self._memory
        arrived = Barrier(len(self._replicas))

        def run(replica: AnyReplica) -> None:
            arrived.wait()
            index = replica.index
            if memory.is_leader(index):
                here = memory.layouts(index)[0].tensors
                for name in here.keys() & parameters.keys():
                    replica.storage.write("parameter", name, parameters[name])
            for name, value in auxiliaries.items():
                if memory.placement.holds(index, name):
                    replica.storage.write("auxiliary", name, value)
            if parameters.keys() >= memory.parameters.tensors.keys():
                memory.torn = None

        jobs = [partial(run, replica) for replica in self._replicas]
        await self._calls.run(
            "write parameters", jobs, cheap=self._cheap, together=True
        )

    async def set_states(
        self, states: Mapping[str, Sequence[Array]] | None, value: float | None
    ) -> None:
        """Set the state inputs, to arrays of every active device or to a number."""
        if (states is None) is (value is None):
            raise ValueError("give either `states` or `value`")
        jobs: list[Callable[[], None]] = [nothing] * len(self._replicas)
        if value is not None:
            jobs = [partial(r.states.fill, value) for r in self._replicas]
        active = [replica for replica in self._replicas if not replica.is_idle]
        for name, arrays in (states or {}).items():
            if len(arrays) != len(active):
                raise ValueError(
                    f"state `{name}` has {len(arrays)} arrays, but there are "
                    f"{len(active)} devices with rows: give one for each"
                )
        for k, replica in enumerate(active if states else ()):
            part = {name: arrays[k] for name, arrays in (states or {}).items()}
            part = check_arrays("state", part, replica.states.shapes)
            jobs[replica.index] = partial(replica.states.set, part)
        await self._calls.run("write states", jobs, cheap=False)

    async def read_updater_states(self, update: Update) -> dict[str, Arrays]:
        """Optimizer state of a rule, from the first device."""

        def combine(parts: list[dict[str, Arrays]]) -> dict[str, Arrays]:
            names = update.updater.parameters
            return {
                state: {n: found[n] for n in names if n in found}
                for state in update.updater.states
                if any(state in part for part in parts)
                for found in (_joined([part.get(state, {}) for part in parts]),)
            }

        return await self._gather(
            lambda r: update.programs.read_states(r.index), combine
        )

    async def write_updater_states(
        self,
        update: Update,
        states: Mapping[str, Mapping[str, Array]],
        recount: Callable[[], None] | None = None,
    ) -> None:
        """Set optimizer state of a rule.

        With `recount` the command cannot be withdrawn. It is called as the command is
        enqueued: steps before have counted as they did, those behind go on from what it
        sets.
        """
        updater, tensors = update.updater, self._memory.parameters.tensors
        shapes = {name: tensors[name].shape for name in updater.parameters}
        checked: dict[str, Arrays] = {}
        for state, values in states.items():
            if state not in updater.states:
                raise KeyError(
                    f"`{state}` is no state of the optimizer; there are "
                    f"{', '.join(updater.states) or 'none'}"
                )
            checked[state] = check_arrays(f"{state} of parameter", values, shapes)
        indexes = range(len(self._replicas))
        jobs = [partial(update.programs.write_states, i, checked) for i in indexes]
        if recount is None:
            await self._calls.run("write states", jobs, cheap=self._cheap)
            return

        def at_once() -> None:
            recount()
            update.numbers.begin_anew()

        await self._calls.run("write states", jobs, cheap=self._cheap, at_once=at_once)

    async def read_function_states(self, update: Update) -> dict[str, Any]:
        """What an update function keeps for each parameter."""
        return await self._gather(
            lambda _: None, lambda _: update.reduction.read_states()
        )

    async def write_function_states(
        self,
        update: Update,
        states: Mapping[str, Any],
        recount: Callable[[], None] | None = None,
    ) -> None:
        """Set what an update function keeps for each parameter.

        `recount` is called on the first device's thread, where the function counts.
        """

        def write() -> None:
            if recount is not None:
                recount()
            update.reduction.write_states(states)

        jobs: list[Callable[[], None]] = [nothing] * len(self._replicas)
        jobs[0] = write
        await self._calls.run("write states", jobs, cheap=self._cheap)

    def _read_gradients(self, replica: AnyReplica) -> Gradients:
        holds, index = self._memory.placement.holds, replica.index
        return {n: replica.gradient(n) for n in self._gradient_names if holds(index, n)}

    def _columns(self, parts: Sequence[Gradients]) -> dict[str, list[Gradient]]:
        names = self._gradient_names
        return {n: [part[n] for part in parts if n in part] for n in names}

    def _is_cheap(self, nbytes: int) -> bool:
        """Whether so much may be copied on the Trio thread."""
        return self._inline and nbytes <= COPY_LIMIT

    async def _gather(
        self, read: Callable[[AnyReplica], T], combine: Callable[[list[T]], R]
    ) -> R:
        """Read on every device; the first device's thread combines what all read."""
        parts: list[Any] = [None] * len(self._replicas)
        all_read = Barrier(len(self._replicas))

        def run(replica: AnyReplica) -> R | None:
            try:
                parts[replica.index] = read(replica)
            except BaseException:
                all_read.fail()
                raise
            if all_read.wait() and replica.index == 0:
                return combine(parts)
            return None

        jobs = [partial(run, replica) for replica in self._replicas]
        combined = (await self._calls.run("read", jobs, cheap=self._cheap))[0]
        assert combined is not None
        return combined


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: array for part in parts for name, array in part.items()}


def check_arrays(
    what: str, arrays: Mapping[str, Array], shapes: Mapping[str, Shape]
) -> Arrays:
    """The values as arrays of numbers.

    Raises:
        KeyError: a name that is not in `shapes`.
        ShapeError: a shape that differs.
        TypeError: values that are no numbers.
    """
    checked: Arrays = {}
    for name, value in arrays.items():
        if name not in shapes:
            raise KeyError(f"`{name}` is no {what}; there are {', '.join(shapes)}")
        array = np.asarray(value)
        if array.shape != shapes[name]:
            raise ShapeError(
                f"{what} `{name}` has shape {array.shape}, but {shapes[name]} is bound"
            )
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise TypeError(f"{what} `{name}` holds {array.dtype}, not numbers")
        checked[name] = array
    return checked
