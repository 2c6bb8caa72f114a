"""What a group of executors is made from, as plain values.

Next: `runtime.graph.request`, which is made of it for each device.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import compress

from runtime.context import DeviceId
from runtime.devices.contract import OnDeath
from runtime.errors import ShapeError
from runtime.executor.split import sliced_shape
from runtime.graph.build import Native
from runtime.graph.compile import GradientRequest, Request
from runtime.graph.ir import Graph, Shape
from runtime.graph.plan import Layout


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input that the caller feeds: data, a label or a state.

    Attributes:
        name: The argument's name in the graph.
        shape: The shape for the whole batch.
        dtype: NumPy's name of the element type.
        batch_axis: The axis that is split over the devices; -1 gives every device the
            whole array.
        stype: Storage type: "default", or "csr" for scipy.sparse CSR matrices.
    """

    name: str
    shape: Shape
    dtype: str = "float32"
    batch_axis: int = 0
    stype: str = "default"


@dataclass(frozen=True)
class GroupSpec:
    """A graph, the devices that share its batch, and what is wanted of it.

    Attributes:
        graph: The graph to run.
        devices: Where; each device at most once.
        workload: Share of each device, in any unit.
        data, labels, states: The inputs; every other argument is a parameter.
        gradients: Request per argument; what is not named is "null".
        for_training: Whether forward and backward are wanted, not only predict.
        in_flight: How many steps may be dispatched and not finished.
        seed: Seed of the random operators.
        output_axes: Batch axis of each output, -1 for none; None means axis 0 of all.
        guards: Bytes of guard zone between tensors (debug mode).
        dtypes: Element types of parameters that are known beforehand.
        placements: Per device that shares the batch, the device of each context group
            of the graph; () if the graph has none.
        on_worker_death: What is to be done when a device's worker process dies.
    """

    graph: Graph
    devices: tuple[DeviceId, ...]
    workload: tuple[float, ...]
    data: tuple[InputSpec, ...]
    labels: tuple[InputSpec, ...] = ()
    states: tuple[InputSpec, ...] = ()
    gradients: Mapping[str, GradientRequest] = field(default_factory=dict)
    for_training: bool = True
    in_flight: int = 2
    seed: int = 0
    output_axes: tuple[int, ...] | None = None
    guards: int = 0
    dtypes: Mapping[str, str] = field(default_factory=dict)
    placements: tuple[Mapping[str, DeviceId], ...] = ()
    on_worker_death: OnDeath = "restart"

    @property
    def drops(self) -> bool:
        """Whether a device may have to be dropped."""
        processes = any(device.worker == "process" for device in self.devices)
        return self.on_worker_death == "drop" and processes

    def without(self, dropped: Collection[DeviceId]) -> GroupSpec:
        """The same on the other devices, in the same order and with their shares."""
        kept = [d not in dropped for d in self.devices]
        return replace(
            self,
            devices=tuple(compress(self.devices, kept)),
            workload=tuple(compress(self.workload, kept)),
        )

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Data, labels and states, in this order."""
        return (*self.data, *self.labels, *self.states)

    @property
    def csr(self) -> frozenset[str]:
        """Names of the inputs that come as CSR matrices."""
        return frozenset(i.name for i in self.inputs if i.stype == "csr")

    @property
    def batch_size(self) -> int:
        """Rows of the whole batch; 1 if no input has a batch axis.

        Raises:
            ShapeError: inputs that differ in it.
        """
        sizes = {
            i.name: i.shape[i.batch_axis] for i in self.inputs if i.batch_axis >= 0
        }
        if not sizes:
            return 1
        if len(set(sizes.values())) != 1:
            raise ShapeError(
                f"all data must have the same batch size (={sizes}): give "
                "every input of the batch the same size along its batch axis"
            )
        return next(iter(sizes.values()))


def plan_request(
    spec: GroupSpec,
    rows: slice,
    native: Native | None,
    *,
    is_train: bool,
    parameters: Layout | None,
    auxiliaries: Layout | None,
    gradient_rows: Layout | None,
) -> Request:
    """What one device has to compile for its rows of the batch."""
    return Request(
        spec.graph,
        tuple(i.name for i in spec.inputs),
        {i.name: sliced_shape(i.shape, i.batch_axis, rows) for i in spec.inputs},
        dict(spec.dtypes) | {i.name: i.dtype for i in spec.inputs},
        spec.gradients if is_train else {},
        is_train,
        parameters,
        auxiliaries,
        native,
        spec.guards,
        csr=spec.csr,
        gradient_rows=gradient_rows,
    )
