"""What all executor groups of a module have in common, and the group for given shapes.

Next: `runtime.executor.specification`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asyncmod.errors import ShapeError
from asyncmod.io.batch import DataDesc
from asyncmod.module import sparse_inputs
from asyncmod.module.descriptions import batch_axis
from runtime.context import DeviceId
from runtime.devices.contract import OnDeath
from runtime.executor.specification import GroupSpec, InputSpec
from runtime.graph.compile import GradientRequest
from runtime.graph.infer import infer_dtypes, infer_shapes
from runtime.graph.ir import Entry, Graph
from runtime.graph.shapes import is_known


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
        """
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
