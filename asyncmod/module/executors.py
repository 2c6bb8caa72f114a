"""One executor group per set of input shapes, all sharing one set of parameters.

Next: `runtime.executor.group`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import trio

from asyncmod.errors import InputError, ShapeError, UnsupportedError
from asyncmod.io.batch import DataDesc
from asyncmod.io.slices import whole
from asyncmod.module import sparse_inputs
from asyncmod.module.batches import Array, Inputs, check_rows, read_batch
from asyncmod.module.descriptions import batch_axis, with_shape
from runtime.actors import Runtime
from runtime.context import DeviceId
from runtime.devices.contract import OnDeath
from runtime.executor.group import ExecutorGroup
from runtime.executor.specification import GroupSpec, InputSpec
from runtime.graph.compile import GradientRequest
from runtime.graph.infer import infer_dtypes, infer_shapes
from runtime.graph.ir import Entry, Graph, Shape
from runtime.graph.shapes import is_known

LIMIT = 16
"""Sets of shapes that a module keeps executors for; the oldest unused one goes."""


@dataclass(frozen=True)
class Template:
    """All that the executor groups of a module have in common.

    Attributes:
        graph: The module's graph.
        devices: Where it runs.
        workload: Share of the batch of each device.
        label_names: Arguments of the graph that are labels, bound or not.
        state_names: Arguments that are states.
        gradients: Request per argument.
        for_training: Whether gradients are wanted.
        seed: Seed of the random operators.
        output_axes: Batch axis of each output.
        in_flight: Steps that may be under way.
        placements: Per device of the batch, the device of each context group.
        on_worker_death: What is to be done when a worker process dies.
    """

    graph: Graph
    devices: tuple[DeviceId, ...]
    workload: tuple[float, ...]
    label_names: tuple[str, ...]
    state_names: tuple[str, ...]
    gradients: Mapping[str, GradientRequest]
    for_training: bool
    seed: int
    output_axes: tuple[int, ...]
    in_flight: int = 2
    placements: tuple[Mapping[str, DeviceId], ...] = ()
    on_worker_death: OnDeath = "restart"

    @property
    def csr_names(self) -> frozenset[str]:
        """Arguments that are declared as CSR matrices."""
        return sparse_inputs.csr_variables(self.graph)

    def specify(
        self, data: Sequence[DataDesc], labels: Sequence[DataDesc]
    ) -> GroupSpec:
        """What to make for these inputs.

        Shapes of states, and of labels that are not described, follow from the graph.

        Raises:
            ShapeError: shapes contradict each other, or cannot be inferred.
            UnsupportedError: CSR inputs of a graph that is cut into stages.
        """
        if self.csr_names and any(self.placements):
            raise UnsupportedError(
                f"CSR inputs ({', '.join(sorted(self.csr_names))}) do not go with "
                "group2ctxs: give all contexts in `context`, or dense data"
            )
        arguments = {node.name for node in self.graph.arguments}
        described = {d.name: d for d in (*data, *labels) if d.name in arguments}
        shapes = {name: d.shape for name, d in described.items()}
        dtypes = {name: d.dtype for name, d in described.items()}
        inferred = infer_shapes(self.graph, shapes)
        inferred_dtypes = infer_dtypes(self.graph, dtypes)
        specs: dict[str, InputSpec] = {}
        for node in self.graph.arguments:
            name, entry = node.name, Entry(node)
            if name in described:
                d = described[name]
                stype = "csr" if name in self.csr_names else "default"
                specs[name] = InputSpec(
                    name, d.shape, d.dtype.name, batch_axis(d), stype
                )
            elif name in self.label_names or name in self.state_names:
                shape = inferred[entry]
                if not is_known(shape):
                    raise ShapeError(
                        f"the shape of `{name}` does not follow from the data: "
                        "describe it in `label_shapes`, or give its variable a shape"
                    )
                axis = DataDesc.get_batch_axis(node.text.get("__layout__"))
                dtype = inferred_dtypes[entry].name
                specs[name] = InputSpec(name, shape, dtype, axis)
        return GroupSpec(
            graph=self.graph,
            devices=self.devices,
            workload=self.workload,
            data=tuple(specs[d.name] for d in data),
            labels=tuple(specs[n] for n in self.label_names if n in specs),
            states=tuple(specs[n] for n in self.state_names if n in specs),
            gradients=self.gradients,
            for_training=self.for_training,
            in_flight=self.in_flight,
            seed=self.seed,
            output_axes=self.output_axes,
            placements=self.placements,
            on_worker_death=self.on_worker_death,
        )


class Bound:
    """An executor group with what it expects of a batch.

    Attributes:
        group: The executors.
        data: The data inputs, in bound order.
        labels: The label inputs that are bound, in bound order.
        fed_labels: Those of them that the graph reads.
        can_train: Whether every label that training reads is bound.
        users: Calls that are about to use the group.
    """

    def __init__(
        self,
        group: ExecutorGroup,
        data: Sequence[DataDesc],
        labels: Sequence[DataDesc],
    ) -> None:
        self.group = group
        self.data = tuple(data)
        # Training needs every label of the graph; match_batch leaves it to others to
        # say so.
        bound = {description.name for description in labels}
        self._needs_labels = bool(group.spec.labels)
        self._has_csr = any(spec.stype == "csr" for spec in group.spec.inputs)
        self.can_train = all(spec.name in bound for spec in group.spec.labels)
        self.labels = tuple(labels)
        self.users = 0
        read = set(group.input_names)
        self.fed_labels = tuple(d for d in self.labels if d.name in read)
        self._data = [(d.name, d.shape, d.dtype) for d in self.data]
        self._labels = [(d.name, d.shape, d.dtype, d.name in read) for d in self.labels]

    def match_batch(self, batch: Any, is_train: bool) -> dict[str, Array] | None:
        """The inputs of a batch that fits in every respect; None to look closer.

        This is on the path of every step, so it only compares.
        """
        if self._has_csr:
            return None
        try:
            if batch.provide_data or batch.provide_label:
                return None
            data, labels = batch.data, batch.label
        except AttributeError:
            return None
        if len(data) != len(self._data):
            return None
        inputs: dict[str, Array] = {}
        for (name, shape, dtype), array in zip(self._data, data, strict=True):
            if not isinstance(array, np.ndarray):
                return None
            if array.shape != shape or array.dtype is not dtype:
                return None
            inputs[name] = array
        if is_train and self._needs_labels and not (labels and self.can_train):
            return None
        if not labels:
            return inputs
        if len(labels) != len(self._labels):
            return inputs if not self._labels else None
        for (name, shape, dtype, fed), array in zip(self._labels, labels, strict=True):
            if not isinstance(array, np.ndarray):
                return None
            if array.shape != shape or array.dtype is not dtype:
                return None
            if fed:
                inputs[name] = array
        return inputs

    def match(self, inputs: Inputs) -> dict[str, Array] | None:
        """The inputs if their shapes are those of this group, else None.

        Labels may be absent, and may have axes of one element too many or too few.
        """
        for description in self.data:
            if inputs.data[description.name].shape != description.shape:
                return None
        fed = dict(inputs.data)
        for description in self.fed_labels:
            array = inputs.labels.get(description.name)
            if array is None:
                continue
            if array.shape != description.shape:
                if _squeezed(array.shape) != _squeezed(description.shape):
                    return None
                array = array.reshape(description.shape)
            fed[description.name] = array
        return fed


class Executors:
    """The executor groups of a bound module, by shape.

    Attributes:
        template: What they have in common.
        first: The group that was bound; the others share its memory.
        current: The group of the last forward, step or reshape.
    """

    def __init__(self, template: Template, runtime: Runtime, first: Bound) -> None:
        self.template = template
        self.first = first
        self.current = first
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
        for bound in (self.first, *self._others):
            bound.group.seed = seed

    @property
    def nbytes(self) -> int:
        """Bytes of all groups, without what they share."""
        return sum(bound.group.nbytes for bound in (self.first, *self._others))

    def use(self, bound: Bound) -> None:
        """Make a group the current one."""
        self.current = bound
        if bound in self._others:
            self._others.remove(bound)
            self._others.append(bound)

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


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _rows(data: Sequence[DataDesc]) -> int | None:
    for description in data:
        axis = batch_axis(description)
        if axis >= 0:
            return description.shape[axis]
    return None


def _listed(descriptions: Sequence[DataDesc]) -> str:
    return ", ".join(f"`{d.name}` {d.shape}" for d in descriptions)
