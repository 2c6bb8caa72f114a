"""Forming groups anew over fewer devices: everything, or nothing has changed.

The new executors are compiled beside the old ones, which stay as they are. Then, with
no step under way, one command on the old devices copies what lies in the old memory
into the new; from the moment it is enqueued every call goes to the new executors, whose
work queues up behind it. Nothing can come between.

Next: `runtime.executor.moving` for what is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from runtime.actors.actor import send
from runtime.actors.command import Command
from runtime.actors.crew import Crew
from runtime.context import DeviceId
from runtime.errors import WorkerDied
from runtime.executor.binding import Binding, allocate_like, bind, closing_jobs
from runtime.executor.calls import Calls
from runtime.executor.collective import Update
from runtime.executor.family import Dropped
from runtime.executor.memory import Memory
from runtime.executor.moving import moving_jobs
from runtime.executor.repeating import MovedInputGradients, RepeatedForward
from runtime.executor.specification import GroupSpec
from runtime.executor.updater import nothing

if TYPE_CHECKING:
    from runtime.executor.family import Family
    from runtime.executor.group import ExecutorGroup


@dataclass(frozen=True)
class Formed:
    """What a group is to run from now on; or what it has run until now."""

    group: ExecutorGroup
    spec: GroupSpec
    calls: Calls
    binding: Binding

    @classmethod
    def now(cls, group: ExecutorGroup) -> Formed:
        """What it runs now."""
        return cls(group, group.spec, group.calls, group.binding)

    async def close(self) -> None:
        """Free it; the memory too if it is the last user."""
        jobs = closing_jobs(self.binding.replicas, self.binding.memory)
        await self.calls.close(jobs)


async def drop(family: Family, died: WorkerDied) -> None:
    """Let a family go on without the devices that it has lost.

    Cancelled before the groups have changed, nothing has happened: whoever calls next
    tries again. After that it cannot be cancelled.

    Raises:
        WorkerDied: no device has been lost, or nothing would be left.
    """
    groups = sorted(family.groups, key=lambda group: not group.spec.for_training)
    if not groups or not (lost := groups[0].binding.memory.lost):
        raise died
    while True:
        devices = groups[0].spec.devices
        dead = [devices[index] for index in lost]
        if len(dead) == len(devices):
            raise died
        try:
            formed, memory = await _form(groups, dead)
            break
        except WorkerDied:
            # One more while the others were told: without that one, too.
            before, lost = lost, groups[0].binding.memory.lost
            if lost.keys() == before.keys():
                raise
    try:
        await family.settle()
    except BaseException:
        await _close(formed, memory, formed[0].calls.crew)
        raise
    another = await _change(family, formed, memory, lost)
    if another is not None:
        with trio.CancelScope(shield=True):
            await drop(family, another)


async def _form(
    groups: Sequence[ExecutorGroup], dead: Collection[DeviceId]
) -> tuple[list[Formed], Memory]:
    """Compile everything on the other devices; nothing is left if it fails.

    Returns:
        What each group is to run, and the new memory, which has one user more.
    """
    first, old = groups[0], groups[0].binding.memory
    runtime, spec = first.calls.runtime, first.spec.without(dead)
    crew = Crew([runtime.actor(device) for device in spec.devices])
    memory = await allocate_like(old, spec, crew)
    formed: list[Formed] = []
    try:
        for group in groups:
            spec = group.spec.without(dead)
            calls = Calls(runtime, crew)
            binding = await bind(spec, crew, memory)
            formed.append(Formed(group, spec, calls, binding))
        for update in tuple(old.updates.values()):
            await Update.prepare(crew, memory, update.updater, update.fixed_ones)
    except BaseException:
        await _close(formed, memory, crew)
        raise
    return formed, memory


async def _change(
    family: Family,
    formed: Sequence[Formed],
    memory: Memory,
    lost: Mapping[int, WorkerDied],
) -> WorkerDied | None:
    """Let the groups run what was formed; what they ran until now is freed.

    Returns:
        The death of one more device, in a forward that was done again.
    """
    changed = [new for new in formed if new.group in family.groups]
    gone = [new for new in formed if new not in changed]
    old = [Formed.now(new.group) for new in changed]
    if not old:  # all were closed meanwhile
        await _close(formed, memory, formed[0].calls.crew)
        return None
    before, calls = old[0].binding.memory, old[0].calls
    forwards = [
        RepeatedForward(new.spec, is_train, was.binding, new.binding)
        for new, was in zip(changed, old, strict=True)
        if (is_train := new.group.forwarded) is not None
    ]
    input_gradients = [
        MovedInputGradients(was.binding, new.binding)
        for new, was in zip(changed, old, strict=True)
    ]
    jobs = moving_jobs(before, memory, changed[0].spec, lost, forwards, input_gradients)
    command = _enqueue("move", jobs, calls)
    for new in changed:
        new.group.calls.superseded = True
        new.group.adopt(new.spec, new.calls, new.binding)
    again = [_enqueue("forward", f.jobs(), changed[0].calls) for f in forwards]
    begun = any(new.group.forwarded for new in changed)  # and not done
    step = min(before.forwards) - begun
    dropped = [
        Dropped(old[0].spec.devices[i], step if died.step is None else died.step, died)
        for i, died in lost.items()
    ]
    family.change(dropped)
    _tell(dropped, changed[0].spec)
    with trio.CancelScope(shield=True):
        for forward in again:
            await forward.wait()
        await command.wait()
        try:
            command.results()
        except Exception as error:
            memory.torn = (
                f"the state could not be copied from the devices before ({error!r}): "
                "set all parameters anew"
            )
            raise
        finally:
            for group in old:
                await group.close()
            await _close(gone, memory, changed[0].calls.crew)
            rest = [getattr(d, "rest", nothing) for d in before.devices]
            await calls.crew.finish(
                "rest",
                [rest[i] if i in lost else nothing for i in range(len(rest))],
            )
    errors = (error for forward in again for error in forward.errors)
    return next((error for error in errors if isinstance(error, WorkerDied)), None)


async def _close(formed: Sequence[Formed], memory: Memory, crew: Crew) -> None:
    """Free what was formed for nothing, and use the memory no more."""
    with trio.CancelScope(shield=True):
        for new in formed:
            await new.close()
        await crew.finish("free", closing_jobs((), memory))


def _enqueue(
    label: str, jobs: Sequence[Callable[[], None]], calls: Calls
) -> Command[None]:
    """Work that cannot be withdrawn."""
    command = Command(label, jobs, calls.crew.names, together=True)
    command.begin()
    send(command, calls.crew.actors)
    return command


def _tell(dropped: Sequence[Dropped], spec: GroupSpec) -> None:
    """Say so."""
    import structlog  # here, since it takes longer to load than all of asyncmod

    rest = ", ".join(map(str, spec.devices))
    for one in dropped:
        died = one.died
        structlog.get_logger("asyncmod").warning(
            f"{died.device} is dropped: {died}; from step {one.step} on its share of "
            f"the batch goes to {rest}",
            device=died.device,
            operation=died.operation,
            step=one.step,
            signal=died.signal,
        )
