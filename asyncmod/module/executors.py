"""One executor group per set of input shapes, all sharing one set of parameters.

Next: `asyncmod.module.template` for what they have in common, `asyncmod.module.bound`
for one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import trio

from asyncmod.errors import InputError, ShapeError
from asyncmod.io.batch import DataDesc
from asyncmod.io.slices import whole
from asyncmod.module.batches import Array, Inputs, check_rows, read_batch
from asyncmod.module.bound import Bound
from asyncmod.module.descriptions import batch_axis, with_shape
from asyncmod.module.template import Template
from runtime.actors import Runtime
from runtime.executor.group import ExecutorGroup
from runtime.graph.infer import infer_shapes
from runtime.graph.ir import Entry, Shape
from runtime.graph.shapes import is_known

LIMIT = 16
"""Sets of shapes that a module keeps executors for; the oldest unused one goes."""


class Executors:
    """The executor groups of a bound module, by shape.

    Attributes:
        template: What they have in common.
        first: The group that was bound; the others share its memory.
        current: The group of the last forward, step or reshape.
        forwarded: The group of the last forward or step, if there was one.
        forwarded_in_training: Whether that was one for training.
    """

    def __init__(self, template: Template, runtime: Runtime, first: Bound) -> None:
        self.template = template
        self.first = first
        self.current = first
        self.forwarded: Bound | None = None
        self.forwarded_in_training = False
        self._runtime = runtime
        self._others: list[Bound] = []
        self._changing = trio.Lock()

    @classmethod
    async def create(
        cls,
        template: Template,
        runtime: Runtime,
        data: Sequence[DataDesc],
        labels: Sequence[DataDesc],
        shared: ExecutorGroup | None = None,
    ) -> Executors:
        """Compile the first group.

        Raises:
            ShapeError, GraphError, GradientError, DeviceError: see ExecutorGroup.
        """
        spec = template.specify(data, labels)
        group = await ExecutorGroup.create(spec, runtime, shared)
        return cls(template, runtime, Bound(group, data, labels))

    @property
    def all(self) -> tuple[Bound, ...]:
        """All groups, the one that was bound first."""
        return (self.first, *self._others)

    def find(
        self, inputs: Inputs, training: bool
    ) -> tuple[Bound, dict[str, Array]] | None:
        """A group that is there already and fits, the current one first."""
        for bound in (self.current, self.first, *reversed(self._others)):
            if training and not bound.can_train:
                continue
            fed = bound.match(inputs)
            if fed is not None:
                return bound, fed
        return None

    def describe(self, inputs: Inputs) -> tuple[list[DataDesc], list[DataDesc]]:
        """Descriptions of a batch's inputs: the bound ones with the batch's shapes.

        Raises:
            InputError: the arrays differ in their number of rows.
        """
        check_rows(inputs, [*self.first.data, *self.first.labels])
        data = [with_shape(d, inputs.data[d.name].shape) for d in self.first.data]
        labels = []
        for description in self.first.labels:
            array = inputs.labels.get(description.name)
            shape = self._resized(description, data) if array is None else array.shape
            labels.append(with_shape(description, shape))
        return data, labels

    async def match(self, batch: Any, training: bool) -> tuple[Bound, dict[str, Array]]:
        """The group for a batch, the current one if that fits as it is; its inputs."""
        inputs = self.current.match_batch(batch, training)
        if inputs is not None:
            return self.current, inputs
        return await self.route(batch, training)

    async def route(self, batch: Any, training: bool) -> tuple[Bound, dict[str, Array]]:
        """The group for a batch, made if its shapes are new, and its inputs.

        Raises:
            InputError: the batch does not fit; nothing changed.
        """
        batch = await whole(batch, self.first.data, self.first.labels)
        csr = self.template.csr_names
        read = read_batch(batch, self.first.data, self.first.labels, csr)
        if training:
            self._check_labels(read.labels)
        found = self.find(read, training)
        if found is None:
            async with self._changing:
                found = self.find(read, training)
                if found is None:
                    bound = await self._add(*self.describe(read))
                    fed = bound.match(read)
                    assert fed is not None, "a group fits what it was made for"
                    return bound, fed
        return found

    async def reshaped(
        self, data: Sequence[DataDesc], labels: Sequence[DataDesc]
    ) -> Bound:
        """The group for these descriptions, made if it is not there.

        Raises:
            InputError: the shapes do not fit the parameters.
        """
        async with self._changing:
            for bound in (self.current, self.first, *self._others):
                if bound.data == tuple(data) and bound.labels == tuple(labels):
                    return bound
            return await self._add(data, labels)

    async def _add(self, data: Sequence[DataDesc], labels: Sequence[DataDesc]) -> Bound:
        """Compile a group for new shapes; nothing changes if that fails."""
        try:
            spec = self.template.specify(data, labels)
            group = await ExecutorGroup.create(
                spec, self._runtime, shared=self.first.group
            )
        except ShapeError as error:
            raise InputError(
                f"{_listed(data)} does not fit what was bound, "
                f"{_listed(self.first.data)}: {error}"
            ) from error
        bound = Bound(group, data, labels)
        self._others.append(bound)
        await self._trim(bound)
        return bound

    async def _trim(self, newest: Bound) -> None:
        """Close the groups beyond the limit, the oldest unused ones first."""
        kept = (newest, self.current)
        unused = [b for b in self._others if b not in kept and not b.users]
        for bound in unused[: max(len(self._others) - LIMIT, 0)]:
            self._others.remove(bound)
            await bound.group.aclose()

    def _check_labels(self, given: Mapping[str, Any]) -> None:
        """Training reads every label of the graph."""
        bound = {description.name for description in self.first.labels}
        for name in self.template.label_names:
            if name not in bound:
                raise InputError(
                    f"training needs the label `{name}`, and the module is bound "
                    "without it: `await mod.bind(data_shapes, label_shapes)`"
                )
            if name not in given:
                raise InputError(
                    f"training needs the label `{name}`, and the batch has none: give "
                    "DataBatch(data=[...], label=[...])"
                )

    def reseed(self, seed: int) -> None:
        """Give all groups, and those that come later, another seed."""
        self.template = replace(self.template, seed=seed)
        for bound in self.all:
            bound.group.seed = seed

    @property
    def nbytes(self) -> int:
        """Bytes of all groups, without what they share."""
        return sum(bound.group.nbytes for bound in self.all)

    def use(self, bound: Bound) -> None:
        """Make a group the current one."""
        self.current = bound
        if bound in self._others:
            self._others.remove(bound)
            self._others.append(bound)

    @property
    def latest(self) -> Bound:
        """The group of the last forward or step, else the current one."""
        return self.forwarded or self.current

    def ran(self, bound: Bound, training: bool) -> None:
        """Note a forward or a step."""
        self.forwarded, self.forwarded_in_training = bound, training
        if bound is not self.current:
            self.use(bound)

    def way_back(self, bound: Bound) -> Callable[[], None]:
        """What takes the note of a step back that is about to be made."""
        before = self.forwarded, self.forwarded_in_training, self.current

        def go_back() -> None:
            if self.forwarded is bound:
                self.forwarded, self.forwarded_in_training, current = before
                self.use(current)

        return go_back

    async def aclose(self) -> None:
        """Close every group. Idempotent; cancelling ends the waiting only."""
        async with trio.open_nursery() as nursery:
            for bound in (self.first, *self._others):
                nursery.start_soon(bound.group.aclose)

    def _resized(self, label: DataDesc, data: Sequence[DataDesc]) -> Shape:
        """A label's shape for another batch: by the graph, or by the batch size."""
        graph = self.template.graph
        node = next((n for n in graph.arguments if n.name == label.name), None)
        if node is not None:
            shape = infer_shapes(graph, {d.name: d.shape for d in data})[Entry(node)]
            if is_known(shape) and len(shape) == len(label.shape):
                return shape
        axis = batch_axis(label)
        shape = label.shape
        if axis >= 0:
            rows = _rows(data)
            if rows is not None:
                shape = (*shape[:axis], rows, *shape[axis + 1 :])
        return shape


def _rows(data: Sequence[DataDesc]) -> int | None:
    for description in data:
        axis = batch_axis(description)
        if axis >= 0:
            return description.shape[axis]
    return None


def _listed(descriptions: Sequence[DataDesc]) -> str:
    return ", ".join(f"`{d.name}` {d.shape}" for d in descriptions)
