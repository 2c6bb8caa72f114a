"""The memory that outlives one binding: parameters, auxiliary states, gradients.

One per family of groups (a module and its reshaped or shared bindings). Devices of one
memory space form a domain and share the parameters; auxiliary states and gradients are
each device's own. The memory is a program without rows on every device, whose segments
the other programs share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from runtime.actors.crew import Crew, shielded
from runtime.devices.contract import Device, Program, Segment
from runtime.errors import WorkerDied
from runtime.executor.placement import Placement
from runtime.executor.updater import Updater
from runtime.graph.face import row_values
from runtime.graph.plan import Layout, Plan

if TYPE_CHECKING:
    from runtime.executor.collective import Update

Array = NDArray[Any]
T = TypeVar("T")


_GRADIENTS = ("gradient", "gradient_rows", "gradient_values")


class Memory:
    """See the module. `create` it, count its `users`, `leave` it.

    Attributes:
        devices: One per actor.
        placement: Who keeps what; see `layouts`.
        parameters, auxiliaries: Layouts of everything.
        gradient_rows: Layout of the row numbers of gradients that are row-sparse.
        domains: Indexes of the devices, grouped by memory space.
        storage: Per device the program that holds the memory.
        has_gradients: Whether there is memory for gradients.
        forwards: Per device how many training forwards it has begun.
        predictions: Per device how many inference forwards it has begun.
        gradients_zero: Per device whether its gradients are known to be zero.
        users: How many groups use it.
        trained: Per device whether some group gives it rows to train on.
        states: Per device the state inputs that were set, or the number that fills
            them.
        updates: What was compiled for each updater.
        accumulators: Per device the segments of the sums of its gradients over several
            batches; none before they are first wanted.
        guards: Bytes of guard zone between tensors.
        torn: Why parameters may be a mixture of two steps; None normally.
        drops: Whether a device whose worker dies is to be dropped.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        placement: Placement,
        parameters: Layout,
        auxiliaries: Layout,
        gradient_rows: Layout,
        has_gradients: bool,
        guards: int,
    ) -> None:
        self.devices = tuple(devices)
        self.placement = placement
        self.parameters = parameters
        self.auxiliaries = auxiliaries
        self.gradient_rows = gradient_rows
        self.has_gradients = has_gradients
        self.domains = group_by([device.memory_space for device in devices])
        self.storage: list[Program] = []
        self.forwards = [0] * len(devices)
        self.predictions = [0] * len(devices)
        self.gradients_zero = [True] * len(devices)
        self.trained = [False] * len(devices)
        self.states: list[dict[str, Array | float]] = [{} for _ in devices]
        self.updates: dict[Updater, Update] = {}
        self.accumulators: list[dict[str, Segment]] = [{} for _ in devices]
        self.torn: str | None = None
        self.drops = False
        self.users = 0
        self.guards = guards

    @classmethod
    async def create(
        cls,
        crew: Crew,
        devices: Sequence[Device],
        placement: Placement,
        parameters: Layout,
        auxiliaries: Layout,
        gradient_rows: Layout,
        *,
        has_gradients: bool,
        guards: int = 0,
    ) -> Memory:
        """Allocate everything, as zeros, on the devices' threads."""
        memory = cls(
            devices,
            placement,
            parameters,
            auxiliaries,
            gradient_rows,
            has_gradients,
            guards,
        )
        programs: list[Program | None] = [None] * len(devices)

        def allocate(device: int, turn: int) -> None:
            leader, source = memory.leader(device), placement.source(device)
            if turn != (device != leader) + (device != source):
                return
            shared: dict[str, Segment] = {}
            for other, names in (
                (leader, ("parameter",)),
                (source, ("auxiliary", *_GRADIENTS)),
            ):
                made = programs[other]
                for name in names if made is not None else ():
                    assert made is not None
                    if name in made.segments:
                        shared[name] = made.segments[name]
            programs[device] = memory._allocate(device, shared)

        try:
            for turn in range(3):
                jobs = [partial(allocate, i, turn) for i in range(len(devices))]
                await crew.run("allocate", jobs)
        except BaseException:
            await shielded("free", crew, [partial(free, [p]) for p in programs])
            raise
        memory.storage = [program for program in programs if program is not None]
        return memory

    def layouts(self, device: int) -> tuple[Layout, Layout]:
        """Parameters and auxiliary states that a device's memory space holds."""
        part, guards = self.placement.part, self.guards
        return (
            part(device, self.parameters, "parameter", guards),
            part(device, self.auxiliaries, "auxiliary", guards),
        )

    def rows_of(self, device: int) -> Layout:
        """Row numbers of the row-sparse gradients that a device's space holds."""
        return self.placement.part(
            device, self.gradient_rows, "gradient_rows", self.guards
        )

    def leader(self, device: int) -> int:
        """The first device of a device's domain."""
        return next(domain[0] for domain in self.domains if device in domain)

    def is_leader(self, device: int) -> bool:
        """Whether a device is the first of its domain, which writes for all."""
        return self.leader(device) == device

    @property
    def lost(self) -> dict[int, WorkerDied]:
        """The devices that are to be dropped, and what they died of."""
        if not self.drops:
            return {}
        deaths = {i: getattr(p, "lost", None) for i, p in enumerate(self.storage)}
        return {i: died for i, died in deaths.items() if died is not None}

    def check_lost(self) -> None:
        """Raise the death of a device that is to be dropped."""
        for died in self.lost.values():
            raise died.again()

    def uncounting(self, jobs: Sequence[Callable[[], T]]) -> Sequence[Callable[[], T]]:
        """Jobs of forwards: one that is lost with its device does not count."""
        if not self.drops:
            return jobs

        def run(index: int) -> T:
            before = self.forwards[index], self.predictions[index]
            try:
                return jobs[index]()
            except WorkerDied:
                self.forwards[index], self.predictions[index] = before
                raise

        return [partial(run, index) for index in range(len(jobs))]

    def count_forward(self, device: int) -> int:
        """One training forward more on a device; how many there were before."""
        before = self.forwards[device]
        self.forwards[device] = before + 1
        return before

    def count_prediction(self, device: int) -> int:
        """One inference forward more on a device; how many there were before."""
        before = self.predictions[device]
        self.predictions[device] = before + 1
        return before

    def leave(self) -> list[list[Program | None]]:
        """One user less: per device the programs to free now, which may be none."""
        self.users -= 1
        if self.users > 0:
            return [[] for _ in self.storage]
        updates = list(self.updates.values())
        self.updates.clear()
        self.accumulators = [{} for _ in self.devices]
        return [
            [*(p for update in updates for p in update.programs.of(i)), storage]
            for i, storage in enumerate(self.storage)
        ]

    def _allocate(self, device: int, shared: Mapping[str, Segment]) -> Program:
        parameters, auxiliaries = self.layouts(device)
        layouts = {"parameter": parameters, "auxiliary": auxiliaries}
        if self.has_gradients:
            layouts["gradient"] = parameters.rename("gradient")
            layouts["gradient_rows"] = numbers = self.rows_of(device)
            layouts["gradient_values"] = row_values(numbers, parameters, self.guards)
        layouts = {name: layout for name, layout in layouts.items() if layout.nbytes}
        plan = Plan(
            segments={name: layout.nbytes for name, layout in layouts.items()},
            tensors={
                name: {
                    key: tensor
                    for key, tensor in layout.tensors.items()
                    if name != "gradient" or key not in self.gradient_rows.tensors
                }
                for name, layout in layouts.items()
            },
            sections={},
            slotted=(),
            zeroed=tuple(layouts),
            guards=self.guards,
        )
        return self.devices[device].compile(plan, shared)


def free(programs: Sequence[Program | None]) -> None:
    """Close programs; on their device's thread."""
    for program in programs:
        if program is not None:
            program.close()


def group_by(keys: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Positions of equal keys, in order of the first of each."""
    groups: dict[str, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    return tuple(map(tuple, groups.values()))
