"""Who does what where parts of one graph run on different devices.

A *member* is one device's work for one share of the batch. Without context groups every
share has one member. With them a share has a leader, on the device that the share was
given to, which takes batches in and hands results out, and a member on each device of
its groups. A device with members of several shares has a thread for each of them.

Next: `runtime.executor.wiring`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from runtime.context import DeviceId
from runtime.devices.contract import Device
from runtime.errors import GraphError
from runtime.executor.specification import GroupSpec
from runtime.executor.wiring import Channel, Wiring, wire
from runtime.graph.compile import parameter_names
from runtime.graph.infer import Inference, infer
from runtime.graph.ir import Node, Shape
from runtime.graph.passes.stages import Stage, cut, place_nodes
from runtime.graph.plan import Layout
from runtime.graph.storage import infer_storage


@dataclass(frozen=True, slots=True)
class Member:
    """One device's work for one share of the batch.

    Attributes:
        share: Which share.
        device: Which device.
        lane: Its number among the members on this device.
        leads: Whether it takes batches in and hands results out.
    """

    share: int
    device: DeviceId
    lane: int
    leads: bool


def members(spec: GroupSpec) -> tuple[Member, ...]:
    """The members of a group, share by share, leaders first."""
    found: list[Member] = []
    lanes: dict[DeviceId, int] = {}
    placements = spec.placements or ({},) * len(spec.devices)
    for share, (device, groups) in enumerate(
        zip(spec.devices, placements, strict=True)
    ):
        for place in dict.fromkeys((device, *groups.values())):
            lane = lanes[place] = lanes.get(place, -1) + 1
            found.append(Member(share, place, lane, place == device))
    return tuple(found)


def check_devices(spec: GroupSpec, shared: GroupSpec | None) -> None:
    """Raise ValueError if the devices of a group contradict it, or its shared group."""
    listed = ", ".join(map(str, spec.devices))
    if len(spec.workload) != len(spec.devices):
        raise ValueError(
            f"workload (={spec.workload}) must have one share for each of the "
            f"{len(spec.devices)} devices"
        )
    if len(set(spec.devices)) != len(spec.devices):
        raise ValueError(f"devices (={listed}) must all be different")
    if shared is not None and members(shared) != members(spec):
        others = ", ".join(map(str, shared.devices))
        raise ValueError(
            f"devices (={listed}) must be those of the shared group ({others})"
        )


@dataclass(frozen=True)
class Placement:
    """Where a group's members are, and which of them keeps what.

    Attributes:
        members: The members.
        spaces: The memory space of each.
        homes: Per share where each parameter and auxiliary state lives; None if all
            members share one memory space, so that it makes no difference.
    """

    members: tuple[Member, ...]
    spaces: tuple[str, ...]
    homes: tuple[Mapping[str, DeviceId], ...] | None

    @classmethod
    def of(cls, spec: GroupSpec, devices: Sequence[Device]) -> Placement:
        """The placement of a group whose members' devices are open."""
        listed = members(spec)
        spaces = tuple(device.memory_space for device in devices)
        if not spec.placements or len(set(spaces)) == 1:
            return cls(listed, spaces, None)
        homes = []
        for share in range(len(spec.devices)):
            places = place_share(spec, share)
            homes.append({n.name: p for n, p in places.items() if n.is_variable})
        return cls(listed, spaces, tuple(homes))

    def source(self, index: int) -> int:
        """The member whose gradients and auxiliary states a member uses.

        It is the first of its share in its memory space.
        """
        key = self._key(index)
        return next(i for i in range(len(self.members)) if self._key(i) == key)

    def holds(self, index: int, name: str) -> bool:
        """Whether a member keeps its share's gradient or state of this name."""
        if self.source(index) != index:
            return False
        if self.homes is None:
            return True
        share, space = self._key(index)
        home = self.homes[share].get(name)
        return home is not None and self.space_of[home] == space

    def holder(self, name: str) -> int:
        """The first member that keeps this name."""
        return next(i for i in range(len(self.members)) if self.holds(i, name))

    def part(self, index: int, layout: Layout, segment: str, gap: int = 0) -> Layout:
        """What a member's memory space holds of a layout."""
        if self.homes is None:
            return layout
        space = self.spaces[index]
        tensors = [
            (name, tensor.shape, tensor.dtype)
            for name, tensor in layout.tensors.items()
            if any(
                self.holds(i, name)
                for i in range(len(self.members))
                if self.spaces[i] == space
            )
        ]
        return Layout.pack(segment, tensors, gap)

    def check_shared(self, other: Placement, names: Sequence[str]) -> None:
        """Refuse to share memory with a group that keeps names elsewhere.

        Raises:
            GraphError: naming the first one.
        """
        for name in names:
            for index in range(len(self.members)):
                if self.holds(index, name) != other.holds(index, name):
                    raise GraphError(
                        f"`{name}` lives on {self._home(index, name)}, but on "
                        f"{other._home(index, name)} in the group that it is shared "
                        "with: give it the same context group in both graphs"
                    )

    def _home(self, index: int, name: str) -> str:
        homes = self.homes and self.homes[self.members[index].share]
        return str(homes.get(name, "no device") if homes else "every device")

    def _key(self, index: int) -> tuple[int, str]:
        return self.members[index].share, self.spaces[index]

    @cached_property
    def space_of(self) -> dict[DeviceId, str]:
        """The memory space of each device."""
        pairs = zip(self.members, self.spaces, strict=True)
        return {member.device: space for member, space in pairs}


def place_share(spec: GroupSpec, share: int) -> dict[Node, DeviceId]:
    """Where a share's nodes run and its variables live."""
    return place_nodes(spec.graph, spec.placements[share], spec.devices[share])


@dataclass(frozen=True)
class Staging:
    """A share's graph, cut into stages and connected.

    Attributes:
        stages: The stages in order.
        wiring: How they are connected.
        inference: Shapes and dtypes in the whole graph, for this share.
        positions: Position of each node in the whole graph, by name.
    """

    stages: tuple[Stage, ...]
    wiring: Wiring
    inference: Inference
    positions: Mapping[str, int]

    @classmethod
    def of(
        cls,
        spec: GroupSpec,
        share: int,
        placement: Placement,
        shapes: Mapping[str, Shape],
    ) -> Staging:
        """Cut the graph of one share.

        Args:
            spec: The group.
            share: Which share.
            placement: Its members.
            shapes: Shapes of the inputs of this share.
        """
        graph = spec.graph
        inputs = [i.name for i in spec.inputs]
        dtypes = dict(spec.dtypes) | {i.name: i.dtype for i in spec.inputs}
        places = place_share(spec, share)
        stages = cut(graph, places, inputs, placement.space_of)
        wiring = wire(
            graph,
            stages,
            spec.gradients if spec.for_training else {},
            inputs,
            [i.name for i in spec.states],
        )
        for i, member in enumerate(placement.members):
            if member.share != share:
                continue
            if placement.source(i) != i:
                wiring.finished[i] = Channel()
            if not member.leads:
                wiring.shown[i] = Channel()
        positions = {node.name: i for i, node in enumerate(graph.nodes)}
        return cls(stages, wiring, infer(graph, shapes, dtypes), positions)

    def row_sparse(self, spec: GroupSpec) -> set[str]:
        """Parameters whose gradient is row-sparse in every stage that reads them.

        Values that are cut are dense, and so are their gradients.
        """
        wished = {name for name, wish in spec.gradients.items() if wish != "null"}
        inputs = {i.name for i in spec.inputs}
        sparse: set[str] = set()
        dense: set[str] = set()
        for stage in self.stages:
            here = {node.name for node in stage.graph.arguments}
            wanted = (here & wished) - inputs
            storage = infer_storage(stage.graph, here & spec.csr, wanted)
            found = {entry.name for entry in storage.row_sparse} & wanted
            sparse |= found
            dense |= wanted - found
        return sparse - dense


def kept_names(spec: GroupSpec) -> list[str]:
    """Parameters and auxiliary states of a group's graph."""
    graph = spec.graph
    names = parameter_names(graph, [i.name for i in spec.inputs])
    return [*names, *(node.name for node in graph.auxiliaries)]
