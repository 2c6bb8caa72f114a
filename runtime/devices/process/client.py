"""The parent's side of the conversation with a device's worker.

Used by the device's thread alone, which waits here while the worker works.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.devices.contract import Home, OnDeath, Segment
from runtime.devices.process.csr import CsrBlock
from runtime.devices.process.death import Death
from runtime.devices.process.memory import Block
from runtime.devices.process.process import Ended, WorkerProcess
from runtime.devices.process.program import Launch, ProcessProgram
from runtime.errors import WorkerDied
from runtime.graph.plan import Plan
from runtime.transport.errors import rebuild
from runtime.transport.frames import Frame
from runtime.transport.plans import encode
from runtime.transport.shared_memory import SharedMemory

_START_SECONDS = 120.0  # on a machine that does much else


@dataclass(frozen=True, slots=True)
class Request:
    """Something that the worker has not answered yet.

    Attributes:
        number: Of its frame.
        program: Whose.
        operation: What it is, in words.
        launch: What was launched; None if it was something else.
    """

    number: int
    operation: str
    program: ProcessProgram | None = None
    launch: Launch | None = None

    @property
    def doing(self) -> tuple[str, int | None]:
        """The operation, and at which step."""
        return self.operation, None if self.launch is None else self.launch.step


class Worker:
    """A device's worker process through all its lives, and what it has been told.

    When it dies, its successor is told all of it again; what it was doing when it died
    is done again as if it had never begun.

    Attributes:
        name: The device's name.
        process: The process; None before the first use and after its end.
    """

    def __init__(self, name: str, kind: str, index: int, home: Home) -> None:
        self.name = name
        self.process: WorkerProcess | None = None
        self._kind, self._index = kind, index
        self._home = home
        self._generation = 0
        self._numbers = itertools.count(1)
        self._program_numbers = itertools.count(1)
        self._programs: dict[int, ProcessProgram] = {}
        self._users: dict[int, int] = {}  # of each mapped block
        self._pending: deque[Request] = deque()
        self._given_up: str | None = None

    # What programs ask for --------------------------------------------------------

    def compile(
        self,
        plan: Plan,
        shared: Mapping[str, Segment],
        slots: int,
        on_death: OnDeath,
    ) -> ProcessProgram:
        """Make a program here and there.

        Raises:
            DeviceError, MemoryError: see `contract.Device.compile`.
            WorkerDied: the worker has, and is not to be started again.
        """
        number = next(self._program_numbers)
        program = ProcessProgram(self, number, plan, shared, slots, on_death)
        try:
            self._ensure(program)
            self._programs[number] = program
            for block in program.blocks:
                users = self._users[block.number] = self._users.get(block.number, 0) + 1
                if users == 1:
                    self._send_block(block, program)
            self._send_plan(program)
            self.finish(program)
        except BaseException:
            program.close()
            raise
        return program

    def launch(self, program: ProcessProgram, launch: Launch) -> None:
        """Tell the worker to run a section."""
        self._ensure(program)
        self._send_launch(program, launch)

    def show_csr(
        self, program: ProcessProgram, name: str, slot: int, block: CsrBlock
    ) -> None:
        """Let the worker use this block for a CSR input from now on."""
        if self.process is None:
            return  # the next one is told everything
        self._send_csr(program, name, slot, block)
        self.finish(program)

    def finish(self, program: ProcessProgram) -> None:
        """Wait until all that was asked is answered; raise what is this program's."""
        while self._pending:
            try:
                self._receive()
            except Ended as ended:
                self._recover(ended.death)
        failure, program.failure = program.failure, None
        if failure is None:
            return
        try:
            raise failure
        finally:
            del failure  # or its traceback holds itself, and all that failed

    def forget(self, program: ProcessProgram) -> None:
        """Let the worker free a program, and memory that no other one uses."""
        if self._programs.pop(program.number, None) is None:
            return
        if self.process is not None:
            self._ask("close", "`close`", {"program": program.number})
        for block in program.blocks:
            users = self._users.get(block.number, 0) - 1
            if users > 0:
                self._users[block.number] = users
            elif self._users.pop(block.number, None) and self.process is not None:
                self._ask("unmap", "`unmap`", {"memory": block.number})

    def close(self) -> None:
        """End the process and free the programs that are left."""
        process, self.process = self.process, None
        self._pending.clear()
        if process is not None:
            process.close()
        for program in self.programs:
            program.close()

    def rest(self) -> None:
        """End the process if nothing is left for it; it starts again when needed."""
        process = self.process
        if process is not None and not self._programs:
            self.process = None
            self._pending.clear()
            process.close()
            self._home.ended()

    @property
    def programs(self) -> tuple[ProcessProgram, ...]:
        """Those that are not closed yet."""
        return tuple(self._programs.values())

    # Life and death ---------------------------------------------------------------

    def start(self, on_death: OnDeath) -> None:
        """Start the process if there is none."""
        if self._given_up is not None:
            self._lose(WorkerDied(self._given_up))
            raise WorkerDied(self._given_up)
        if self.process is None:
            self._start(on_death)

    def _ensure(self, program: ProcessProgram) -> None:
        """See that the process lives; a death while it was idle is found here."""
        if self.process is None:
            self.start(program.on_death)
        elif not self._pending and self.process.ended:
            self._recover(self.process.kill(), program)

    def _recover(self, death: Death, next_user: ProcessProgram | None = None) -> None:
        """Put right what a dead process was changing; go on with another one, or raise.

        Args:
            death: How it ended.
            next_user: Who needs the process, if it died while it was idle.
        """
        lost = list(self._pending)
        self._pending.clear()
        self.process = None
        self._home.ended()
        again = _unfinished(lost)
        users = [r.program for r in lost if r.program is not None]
        user = users[0] if users else next_user
        if user is None:  # it was only to free something
            return
        operation, step = lost[0].doing if lost else ("nothing: it was idle", None)
        self._check_policy(death, operation, step, user.on_death)
        self._start(user.on_death)
        for program, launch in again:
            if program.failure is None:
                self._send_launch(program, launch)

    def _check_policy(
        self, death: Death, operation: str, step: int | None, on_death: OnDeath
    ) -> None:
        """Raise the death unless another process may take over."""
        died = death.error(self.name, operation, step)
        try:
            if on_death == "drop":
                self._lose(died)
            if on_death != "restart":
                raise died
            if not self._home.may_restart(self.name):
                died.add_note("it has died too often to be started once more")
                self._given_up = str(died)
                raise died
            import structlog  # here, since it takes longer to load than all of asyncmod

            structlog.get_logger("asyncmod").warning(f"{died}; another one takes over")
        finally:
            del died  # or its traceback holds itself, and the memory of what failed

    def _lose(self, died: WorkerDied) -> None:
        """The device is dropped: what ran on it for those who want that is over."""
        for program in self.programs:
            if program.on_death == "drop":
                program.lost = died.again()  # its traceback would hold the program
                self.forget(program)

    def _start(self, on_death: OnDeath) -> None:
        """Start a process and tell it everything; as often as that may be tried."""
        while True:
            self._generation += 1
            process = WorkerProcess(
                self._kind, self._index, self._generation, self._home.policy
            )
            self.process = process
            try:
                self._home.started(process.pid)
                self._pending.append(Request(0, "its start"))
                self._receive()
                self._tell_everything()
            except Ended as ended:
                self._pending.clear()
                self.process = None
                self._check_policy(ended.death, "its start", None, on_death)
            except BaseException:
                self._pending.clear()
                self.process = None
                process.close()
                raise
            else:
                return

    def _tell_everything(self) -> None:
        """All memory and all programs, each answered before the next is sent."""
        told = set()
        for program in self._programs.values():
            for block in program.blocks:
                if block.number not in told:
                    told.add(block.number)
                    self._send_block(block, program)
                    self._receive()
            self._send_plan(program)
            self._receive()
            for (name, slot), csr in program.csr_inputs.blocks.items():
                self._send_csr(program, name, slot, csr)
                self._receive()

    # Frames -----------------------------------------------------------------------

    def _send_block(self, block: Block, program: ProcessProgram) -> None:
        memory = block.memory
        fields = {"memory": block.number, "nbytes": memory.nbytes}
        self._ask("map", "`map`", fields, program, fd=memory.fd)

    def _send_plan(self, program: ProcessProgram) -> None:
        data = encode(program.plan)
        blob = SharedMemory(len(data))
        try:
            blob.data[:] = np.frombuffer(data, np.uint8)
            fields = {
                "program": program.number,
                "plan": len(data),
                "slots": program.slots,
                "segments": program.places(),
                "journal": program.journal_place(),
            }
            self._ask("compile", "`compile`", fields, program, fd=blob.fd)
        finally:
            blob.close()

    def _send_csr(
        self, program: ProcessProgram, name: str, slot: int, block: CsrBlock
    ) -> None:
        fields: Frame = {"program": program.number, "name": name, "slot": slot}
        fields["nbytes"] = block.memory.nbytes
        self._ask("csr", f"`csr` {name}", fields, program, fd=block.memory.fd)

    def _send_launch(self, program: ProcessProgram, launch: Launch) -> None:
        lost = program.lost_forward(launch, self._generation)
        if lost is not None:
            self._send_launch(program, lost)
        key = launch.key
        fields = {
            "program": program.number,
            "section": launch.section,
            "slot": launch.slot,
            "key": [key.seed, key.step, key.row],
            "version": launch.version,
            "after": launch.after,
        }
        number = self._ask("launch", f"`{launch.section}`", fields, program, launch)
        program.launched[launch.section] = launch.slot, number

    def _ask(
        self,
        kind: str,
        operation: str,
        fields: Frame,
        program: ProcessProgram | None = None,
        launch: Launch | None = None,
        fd: int | None = None,
    ) -> int:
        """Send a request; its answer is `_receive`d later."""
        assert self.process is not None
        number = next(self._numbers)
        self._pending.append(Request(number, operation, program, launch))
        frame = {"op": kind, "number": number, **fields}
        self.process.send(frame, () if fd is None else (fd,))
        return number

    def _receive(self) -> None:
        """Take the answer to the oldest request.

        Raises:
            Ended: the process has ended, or was, since this was no such answer.
        """
        process, request = self.process, self._pending[0]
        assert process is not None
        deadline = None
        if request.number == 0:
            deadline = _START_SECONDS
        elif request.launch is not None:
            deadline = self._home.policy.deadline
        frame = process.receive(deadline)
        got = frame["number"], frame["generation"]
        if got != (request.number, process.generation):
            why = (
                f"it broke the protocol: answer (number, generation) = {got} to "
                f"request {request.number, process.generation}"
            )
            raise Ended(process.kill(why))
        self._pending.popleft()
        if frame["op"] == "failed" and request.program is not None:
            place = f"the worker process of {self.name} (pid {process.pid})"
            error = rebuild(frame, place)
            operation, step = request.doing
            if step is not None:
                error.add_note(f"during {operation} of step {step}")
            if request.program.failure is None:
                request.program.failure = error


def _unfinished(lost: Sequence[Request]) -> list[tuple[ProcessProgram, Launch]]:
    """Put back what was under way; the launches that are to be run again, in order.

    Args:
        lost: What had not been answered, in order; a process does one after another, so
            that all before one that it had begun were complete.
    """
    again: list[tuple[ProcessProgram, Launch]] = []
    complete = False
    for request in reversed(lost):
        program, launch = request.program, request.launch
        if program is None or launch is None or complete:
            continue
        begun = program.journal.has_begun(launch.section, request.number)
        if not program.journal.recover(launch.section, launch.slot, request.number):
            again.append((program, launch))
        complete = begun
    return again[::-1]
