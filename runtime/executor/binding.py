"""Binding a graph to devices: plan, allocate, compile; everything or nothing.

Next: `runtime.executor.specification`, `runtime.graph.compile` for the plans,
`runtime.executor.memory` for what outlives a binding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from runtime.actors import linger
from runtime.actors.actor import DeviceActor
from runtime.actors.crew import Crew, shielded
from runtime.actors.runtime import Runtime
from runtime.devices.contract import Device, Program
from runtime.devices.factory import create_device
from runtime.devices.undoing import UndoingDevice
from runtime.errors import DeviceError
from runtime.executor.calls import Calls
from runtime.executor.memory import Memory, free
from runtime.executor.merging import Merge
from runtime.executor.placement import Placement, Staging, kept_names, members
from runtime.executor.replica import Replica
from runtime.executor.specification import GroupSpec, plan_request
from runtime.executor.split import is_empty, sliced_shape, split
from runtime.executor.staged import AnyReplica, StagedReplica
from runtime.graph.compile import compile_plan
from runtime.graph.face import row_numbers
from runtime.graph.ir import Entry, Graph
from runtime.graph.plan import Layout, Plan


@dataclass(frozen=True)
class Binding:
    """A graph, compiled on all devices of a group.

    Attributes:
        memory: The parameters and what else outlives the binding.
        replicas: One per member (see `runtime.executor.placement`).
        slices: Each share's rows.
        plan: The plan of the first share that has rows. With context groups nothing
            runs it; it describes the face of the whole graph.
        outputs, heads, input_gradients: How the parts of the devices merge.
    """

    memory: Memory
    replicas: tuple[AnyReplica, ...]
    slices: tuple[slice, ...]
    plan: Plan
    outputs: Merge
    heads: Merge | None
    input_gradients: Merge | None


async def start(
    spec: GroupSpec, runtime: Runtime, memory: Memory | None
) -> tuple[Calls, Binding]:
    """Bind on the devices of a specification, and what calls them.

    After an error or a cancellation nothing is left behind.
    """
    crew = Crew([runtime.actor(m.device, m.lane) for m in members(spec)])
    binding = await bind(spec, crew, memory)
    return Calls(runtime, crew, bool(spec.placements)), binding


async def bind(spec: GroupSpec, crew: Crew, memory: Memory | None) -> Binding:
    """Compile a graph on the devices' threads.

    Args:
        spec: What to bind.
        crew: The devices' actors.
        memory: Shared with another group; None to make new memory.

    After an error or a cancellation nothing is left behind.
    """
    slices = split(spec.batch_size, spec.workload)
    replicas: tuple[AnyReplica, ...] = ()
    if memory is not None:
        memory.users += 1
    try:
        devices = await _open_all(spec, crew)
        placement = Placement.of(spec, devices)
        stagings = await crew.run_first(
            "stage", partial(_stagings, spec, slices, placement)
        )
        planning = partial(_plan, spec, slices, placement, devices, stagings, memory)
        plans = await crew.run_first("plan", planning)
        first = next(plan for plan in plans if plan is not None)
        if memory is None:
            memory = await _allocate(spec, crew, devices, placement, first)
        elif spec.for_training and not memory.has_gradients:
            raise DeviceError(
                "a group for training cannot share the memory of a group that was "
                "bound with for_training=False: bind the first one for training"
            )
        placement.check_shared(memory.placement, kept_names(spec))
        replicas = await crew.run_first(
            "place", partial(_replicas, spec, slices, devices, memory, plans, stagings)
        )
        await crew.run("compile", [replica.compile for replica in replicas])
        merges = _merges(spec, plans)
    except BaseException:
        if memory is not None:
            await shielded("free", crew, closing_jobs(replicas, memory))
        raise
    if spec.for_training:
        for replica in replicas:
            memory.trained[replica.index] |= not is_empty(replica.rows)
    return Binding(memory, replicas, slices, first, *merges)


async def allocate_like(memory: Memory, spec: GroupSpec, crew: Crew) -> Memory:
    """New memory for the same things on the devices of `spec`, for one user."""
    devices = await _open_all(spec, crew)
    made = await Memory.create(
        crew,
        devices,
        Placement.of(spec, devices),
        memory.parameters,
        memory.auxiliaries,
        memory.gradient_rows,
        has_gradients=memory.has_gradients,
        guards=spec.guards,
    )
    made.drops, made.users = spec.drops, 1
    return made


def closing_jobs(
    replicas: Sequence[AnyReplica], memory: Memory
) -> list[Callable[[], None]]:
    """What frees a group; its memory too if nobody else uses it."""

    def close(index: int, others: Sequence[Program | None]) -> None:
        if replicas:
            replicas[index].close()
        free(others)

    return [partial(close, i, others) for i, others in enumerate(memory.leave())]


def fixed_ones(graph: Graph) -> frozenset[str]:
    """Parameters that count as 1 whatever they hold: gammas of BatchNorm(fix_gamma)."""
    return frozenset(
        node.inputs[1].node.name
        for node in graph.nodes
        if node.operator is not None and getattr(node.attributes, "fix_gamma", False)
    )


async def _allocate(
    spec: GroupSpec,
    crew: Crew,
    devices: Sequence[Device],
    placement: Placement,
    plan: Plan,
) -> Memory:
    if any(actor.device_id.worker == "process" for actor in crew.actors):
        # All at once: the first one to allocate would start alone otherwise.
        await crew.run("start", [partial(_start, device) for device in devices])
    memory = await Memory.create(
        crew,
        devices,
        placement,
        _layout(plan, "parameter"),
        _layout(plan, "auxiliary"),
        _layout(plan, "gradient_rows"),
        has_gradients=spec.for_training,
        guards=spec.guards,
    )
    memory.drops = spec.drops
    memory.users = 1
    return memory


async def _open_all(spec: GroupSpec, crew: Crew) -> list[Device]:
    jobs = [partial(_open, actor, spec) for actor in crew.actors]
    return await crew.run("open device", jobs)


def _open(actor: DeviceActor, spec: GroupSpec) -> Device:
    """The device as a group sees it that wants this done when a worker dies."""
    device: Device = actor.device(_create)
    if actor.device_id.worker == "thread":
        return UndoingDevice(device) if spec.drops else device
    from runtime.devices.process.device import ProcessDevice

    assert isinstance(device, ProcessDevice)
    return device.under(spec.on_worker_death)


def _start(device: Device) -> None:
    """Have its worker process, if it has one."""
    from runtime.devices.process.device import ProcessDevice

    if isinstance(device, ProcessDevice):
        device.start()


def _create(actor: DeviceActor) -> Device:
    device_id = actor.device_id
    if device_id.threads != 1:
        raise DeviceError(
            f"threads (={device_id.threads}) of {device_id} must be 1: use one device "
            "per thread, such as [cpu(0), cpu(1)]"
        )
    device = create_device(device_id.kind, device_id.index, device_id.worker, actor)
    linger.offer(device.linger)
    return device


def _plan(
    spec: GroupSpec,
    slices: Sequence[slice],
    placement: Placement,
    devices: Sequence[Device],
    stagings: Mapping[int, Staging],
    memory: Memory | None,
) -> list[Plan | None]:
    """A plan for every leader that has rows; equal shares have the same one."""
    parameters = memory.parameters if memory is not None else None
    auxiliaries = memory.auxiliaries if memory is not None else None
    gradient_rows = _gradient_rows(spec, stagings) if spec.placements else None
    if memory is not None:
        gradient_rows = memory.gradient_rows
    made: dict[tuple[int, type], Plan] = {}
    plans: list[Plan | None] = []
    for member, device in zip(placement.members, devices, strict=True):
        rows = slices[member.share]
        if is_empty(rows) or not member.leads:
            plans.append(None)
            continue
        native = None if spec.placements else device.native
        key = rows.stop - rows.start, type(native)
        if key not in made:
            made[key] = compile_plan(
                plan_request(
                    spec,
                    rows,
                    native,
                    is_train=spec.for_training,
                    parameters=parameters,
                    auxiliaries=auxiliaries,
                    gradient_rows=gradient_rows,
                )
            )
            parameters = _layout(made[key], "parameter")
            auxiliaries = _layout(made[key], "auxiliary")
            gradient_rows = _layout(made[key], "gradient_rows")
        plans.append(made[key])
    return plans


def _replicas(
    spec: GroupSpec,
    slices: Sequence[slice],
    devices: Sequence[Device],
    memory: Memory,
    plans: Sequence[Plan | None],
    stagings: Mapping[int, Staging],
) -> tuple[AnyReplica, ...]:
    """What runs each member: a plan, the stages of its share, or nothing."""
    replicas: list[AnyReplica] = []
    for i, member in enumerate(memory.placement.members):
        rows, staging = slices[member.share], stagings.get(member.share)
        if staging is None:
            replicas.append(Replica(i, rows, devices[i], spec, memory, plans[i]))
        else:
            replicas.append(StagedReplica(i, rows, devices[i], spec, memory, staging))
    return tuple(replicas)


def _stagings(
    spec: GroupSpec, slices: Sequence[slice], placement: Placement
) -> dict[int, Staging]:
    """The stages of each share that has rows; none without context groups."""
    if not spec.placements:
        return {}
    spec.graph.check_names()
    return {
        share: Staging.of(
            spec,
            share,
            placement,
            {s.name: sliced_shape(s.shape, s.batch_axis, rows) for s in spec.inputs},
        )
        for share, rows in enumerate(slices)
        if not is_empty(rows)
    }


def _gradient_rows(spec: GroupSpec, stagings: Mapping[int, Staging]) -> Layout:
    """Row numbers of the gradients that are row-sparse in the stages of all shares."""
    staged = list(stagings.values())
    names = set.intersection(*(staging.row_sparse(spec) for staging in staged))
    inference = staged[0].inference
    entries = {node.name: Entry(node) for node in spec.graph.arguments}
    items = [
        (name, inference.shapes[entries[name]], inference.dtypes[entries[name]].name)
        for name in names
    ]
    return row_numbers(items, spec.guards)


def _layout(plan: Plan, segment: str) -> Layout:
    return Layout(plan.tensors.get(segment, {}), plan.segments.get(segment, 0))


def _merges(
    spec: GroupSpec, plans: Sequence[Plan | None]
) -> tuple[Merge, Merge | None, Merge | None]:
    """How outputs, head gradients and input gradients are put together."""
    first = next(plan for plan in plans if plan is not None)
    names = first.output_names
    axes = spec.output_axes or (0,) * len(names)
    if len(axes) != len(names):
        raise ValueError(
            f"output_axes (={axes}) must have one axis for each of the outputs {names}"
        )

    def merge(segment: str, names: Sequence[str], axes: Sequence[int]) -> Merge | None:
        if not names:
            return None
        tensors = [
            None if plan is None else [plan.tensors[segment][name] for name in names]
            for plan in plans
        ]
        return Merge.of(names, axes, tensors)

    outputs = merge("output", names, axes)
    assert outputs is not None
    heads = [name for name in names if name in first.heads]
    axis_of = dict(zip(names, axes, strict=True))
    wanted = first.tensors.get("input_gradient", {})
    data = [i for i in spec.inputs if i.name in wanted]
    return (
        outputs,
        merge("head", heads, [axis_of[name] for name in heads]),
        merge("input_gradient", [i.name for i in data], [i.batch_axis for i in data]),
    )
