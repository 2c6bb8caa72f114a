"""What every device promises; `tests/conformance` holds each of them to it.

A device compiles plans into programs. A program owns (or shares) its memory and is
used by one thread at a time, normally the device's own. Work is *launched* in order
and may complete late: only `read` and `wait` give results, and only they raise what
went wrong in launched rows. Host arrays cross at `write` and `read` alone, and are
copied there.

Next: `runtime.devices.reference` for the simplest device, `runtime.devices.cpu` for
the fastest on this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from numpy.typing import NDArray

from runtime.actors.linger import Linger
from runtime.actors.supervisor import WorkerPolicy
from runtime.graph.build import Native
from runtime.graph.plan import Plan, Section

Array = NDArray[Any]


class StepKey(NamedTuple):
    """What makes the random numbers of a step: the same key, the same numbers.

    Attributes:
        seed: The module's seed.
        step: Training forwards before this one; in a prediction, of which the numbers
            must be others, `FIRST_PREDICTION` and the predictions before it.
        row: Position of this device's first row in the whole batch.
    """

    seed: int = 0
    step: int = 0
    row: int = 0


FIRST_STEP = StepKey()
FIRST_PREDICTION = 2**31

# What is to be done when a worker process dies: start another one and do again what it
# was doing, raise `WorkerDied`, or go on with the other devices.
OnDeath = Literal["restart", "fail", "drop"]


class Segment(Protocol):
    """Device memory. Opaque but for its size and the count of its changes.

    Attributes:
        nbytes: Size in bytes.
        version: Raised by one by whoever changes the contents of parameters or
            auxiliary states; programs repack weights when it has moved.
    """

    nbytes: int
    version: int


class Program(Protocol):
    """A compiled plan with its memory.

    Attributes:
        plan: What it runs.
        segments: Its memory by segment name; give some of them to another `compile`
            to share them.
        inline: Cheap and native enough to be run on the caller's thread.
        native: Nothing but native code that runs in this process.
    """

    @property
    def plan(self) -> Plan: ...
    @property
    def segments(self) -> Mapping[str, Segment]: ...
    @property
    def inline(self) -> bool: ...
    @property
    def native(self) -> bool: ...

    def write(
        self,
        segment: str,
        name: str,
        value: Array,
        slot: int = 0,
        *,
        rows: int | None = None,
    ) -> None:
        """Copy a host array into the named tensor, cast to its dtype.

        The array is the caller's again when this returns. An input that the plan has
        as CSR takes a scipy.sparse CSR matrix. With `rows` only that many of the
        tensor's first rows are written.

        Raises:
            ShapeError: if the shapes differ.
        """
        ...

    def read(
        self,
        segment: str,
        name: str,
        slot: int = 0,
        *,
        rows: int | None = None,
        out: Array | None = None,
    ) -> Array:
        """Wait for what was launched, then return a copy of the named tensor.

        A CSR input is read as a scipy.sparse CSR matrix.

        Args:
            segment: The tensor's segment.
            name: Its name.
            slot: The slot, in slotted segments.
            rows: How many of its first rows; all unless given.
            out: Where to copy it, of its shape and dtype; a fresh array unless given.
        """
        ...

    def fill(self, segment: str, value: float = 0.0) -> None:
        """Set every tensor of a face segment to a number (zero gradients)."""
        ...

    def launch(
        self, section: Section, slot: int = 0, key: StepKey = FIRST_STEP
    ) -> None:
        """Run a section after all that was launched before; may return early.

        "step" is "forward" and then "backward". Weights are repacked first if the
        parameters (or the auxiliary states that are folded into them) have changed.
        """
        ...

    def wait(self) -> None:
        """Return when all launched work is complete; raise what went wrong in it."""
        ...

    def undo(self, section: Section) -> bool:
        """Take back what the last launch of a section has changed in place.

        Returns:
            Whether the memory now is as it was before; most devices cannot do it.
        """
        ...

    def close(self) -> None:
        """Free the memory. Idempotent. Shared segments live while others hold them."""
        ...


class Home(Protocol):
    """Who owns a device that has a process of its own.

    Attributes:
        policy: What is borne from the process.
    """

    @property
    def policy(self) -> WorkerPolicy: ...
    def started(self, pid: int) -> None:
        """A process was started; called on the device's thread."""
        ...

    def ended(self) -> None:
        """It has ended, and this is being told to whoever was waiting for it."""
        ...

    def may_restart(self, name: str) -> bool:
        """Whether another process may take over from one that has died."""
        ...


class Device(Protocol):
    """A place where plans run.

    Attributes:
        name: Such as `cpu(0)`.
        memory_space: Devices of equal memory space can share segments.
        native: What it offers to the compiler besides NumPy definitions; None if
            nothing.
        linger: How its thread waits for its next work before it blocks, without the
            interpreter lock; None if it has no code for that.
    """

    @property
    def name(self) -> str: ...
    @property
    def memory_space(self) -> str: ...
    @property
    def native(self) -> Native | None: ...
    @property
    def linger(self) -> Linger | None: ...

    def compile(
        self,
        plan: Plan,
        shared: Mapping[str, Segment] | None = None,
        slots: int = 1,
    ) -> Program:
        """Allocate the plan's segments, but for the shared ones, and resolve its rows.

        Raises:
            DeviceError: if a shared segment is too small or a kernel is missing.
        """
        ...
