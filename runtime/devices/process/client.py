"""The parent's side of the conversation with a device's worker.

Used by the device's thread alone, which waits here while the worker works.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
from runtime.transport.frames import Frame, pack
from runtime.transport.plans import encode
from runtime.transport.shared_memory import SharedMemory

_START_SECONDS = 120.0  # on a machine that does much else


@dataclass(frozen=True, slots=True)
class Request:
    """Something that the worker has not answered yet.

    Attributes:
        number: Of its frame.
        operation: What it is, in words, if it is no launch.
        program: Whose, if it is no launch.
        launches: What was launched, in order.
        after: Whether it is left out if the launches before it fail.
    """

    number: int
    operation: str = ""
    program: ProcessProgram | None = None
    launches: tuple[Launch, ...] = ()
    after: bool = False

    def user(self, at: int = 0) -> ProcessProgram | None:
        """Whose it is, or whose one of its launches is."""
        return self.launches[at].program if self.launches else self.program

    def doing(self, at: int = 0) -> tuple[str, int | None]:
        """The operation, and at which step."""
        if not self.launches:
            return self.operation, None
        launch = self.launches[at]
        return f"`{launch.section}`", launch.step


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

    def launch(
        self, launches: Sequence[Launch], *, after: bool = False, linger: bool = False
    ) -> None:
        """Tell the worker to run sections, each only if those before it succeed.

        Args:
            launches: The sections.
            after: Whether also those must succeed that were launched before these.
            linger: Whether it shall look out for more before it falls asleep.
        """
        self._ensure(launches[0].program)
        self._send_launches(launches, after=after, linger=linger)

    def is_heard(self) -> bool:
        """Whether an answer has come, or the end of the process."""
        return self.process is None or self.process.is_heard

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
        users = [user for r in lost if (user := r.user()) is not None]
        user = users[0] if users else next_user
        if user is None:  # it was only to free something
            return
        operation, step = lost[0].doing() if lost else ("nothing: it was idle", None)
        self._check_policy(death, operation, step, user.on_death)
        self._start(user.on_death)
        for request in again:
            if all(launch.program.failure is None for launch in request.launches):
                self._send_launches(request.launches, after=request.after)

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

    def _send_launches(
        self, launches: Sequence[Launch], *, after: bool, linger: bool = False
    ) -> None:
        sent: list[Launch] = []
        for launch in launches:
            lost = launch.program.lost_forward(launch, self._generation)
            sent += [launch] if lost is None else [lost, launch]
        fields = [
            (
                *(launch.program.number, launch.section, launch.slot),
                *(launch.key.seed, launch.key.step, launch.key.row),
                *(launch.version, launch.saved),
            )
            for launch in sent
        ]
        request = Request(next(self._numbers), launches=tuple(sent), after=after)
        frame: Frame = {"op": "launch", "after": after, "linger": linger}
        self._send(request, frame | {"launches": fields})
        for launch in sent:
            launch.program.sent(launch, request.number)

    def _ask(
        self,
        kind: str,
        operation: str,
        fields: Frame,
        program: ProcessProgram | None = None,
        fd: int | None = None,
    ) -> None:
        """Ask for something that is no launch."""
        request = Request(next(self._numbers), operation, program)
        self._send(request, {"op": kind, **fields}, () if fd is None else (fd,))

    def _send(self, request: Request, frame: Frame, fds: Sequence[int] = ()) -> None:
        """Send a request; its answer is `_receive`d later."""
        assert self.process is not None
        self._pending.append(request)
        self.process.send({"number": request.number, **frame}, fds)

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
        elif request.launches:
            deadline = self._home.policy.deadline
        done = {"op": "done", "number": request.number}
        expected = pack({**done, "generation": process.generation})
        frame = process.receive(deadline, expected)
        if frame is None:
            self._pending.popleft()
            return
        got = frame["number"], frame["generation"]
        if got != (request.number, process.generation):
            why = (
                f"it broke the protocol: answer (number, generation) = {got} to "
                f"request {request.number, process.generation}"
            )
            raise Ended(process.kill(why))
        launches = max(len(request.launches), 1)
        if frame["op"] == "failed" and not 0 <= frame["at"] < launches:
            why = f"it broke the protocol: launch {frame['at']} of {launches} failed"
            raise Ended(process.kill(why))
        self._pending.popleft()
        if frame["op"] == "failed":
            self._note_failure(request, frame, process.pid)

    def _note_failure(self, request: Request, frame: Frame, pid: int) -> None:
        """Keep an error for the program that it belongs to, until that waits."""
        program = request.user(frame["at"])
        if program is None:
            return
        error = rebuild(frame, f"the worker process of {self.name} (pid {pid})")
        operation, step = request.doing(frame["at"])
        if step is not None:
            error.add_note(f"during {operation} of step {step}")
        if program.failure is None:
            program.failure = error


def _unfinished(lost: Sequence[Request]) -> list[Request]:
    """Put back what was under way; the launches that are to be run again, in order.

    Args:
        lost: What had not been answered, in order; a process does one after another, so
            that all before one that it had begun were complete.
    """
    again: list[Request] = []
    complete = False
    for request in reversed(lost):
        left: list[Launch] = []
        for launch in reversed(request.launches):
            if complete:
                break
            section, number = launch.section, request.number
            journal = launch.program.journal
            begun = journal.has_begun(section, number)
            if not journal.recover(section, launch.slot, number):
                left.append(launch)
            complete = begun
        if left:
            again.append(replace(request, launches=tuple(reversed(left))))
    return again[::-1]
