"""The worker's side of the conversation: one request after another, each answered."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from runtime.devices.contract import StepKey
from runtime.devices.factory import create_device
from runtime.devices.host import HostDevice, HostProgram, HostSegment
from runtime.devices.process.csr import CsrBlock
from runtime.devices.process.journal import Journal
from runtime.devices.process.journal_layout import SEGMENT, Layout
from runtime.devices.process.lookout import Lookout
from runtime.devices.process.memory import PRIVATE
from runtime.errors import DeviceError
from runtime.graph.plan import Section
from runtime.transport.errors import describe
from runtime.transport.frames import REQUESTS, Frame, pack, receive
from runtime.transport.plans import decode
from runtime.transport.shared_memory import SharedMemory


@dataclass(frozen=True, slots=True)
class Served:
    """A program, its journal, and its CSR inputs by name and slot."""

    program: HostProgram
    journal: Journal
    csr: dict[tuple[str, int], CsrBlock]


class Server:
    """Runs programs on an ordinary device, over memory that the parent has made."""

    def __init__(
        self, connection: socket.socket, generation: int, kind: str, index: int
    ) -> None:
        # The kinds that have workers are all of them host devices.
        self._device = cast(HostDevice, create_device(kind, index))
        self._connection = connection
        self._generation = generation
        self._memories: dict[int, SharedMemory] = {}
        self._programs: dict[int, Served] = {}
        self._lookout = Lookout(connection)
        self._at = 0  # which one of the launches of a request
        self._failed = False  # one of the last launches
        self._handlers: dict[str, Callable[[Frame, list[int]], None]] = {
            "map": self._map,
            "unmap": self._unmap,
            "compile": self._compile,
            "csr": self._csr,
            "launch": self._launch,
            "close": self._close,
        }

    def run(self) -> None:
        """Answer until the parent closes the connection, which ends the process."""
        answer, lingers = pack(self._done(0)), False
        while True:
            self._connection.sendall(answer)
            if lingers:
                self._lookout.wait()
            try:
                frame, fds = receive(self._connection, REQUESTS)
            except (EOFError, ConnectionResetError):
                os._exit(0)
            lingers = frame.get("linger", False)
            answer = self._answer(frame, fds)

    def _answer(self, frame: Frame, fds: list[int]) -> bytes:
        """Do what a request asks for."""
        answer = self._done(frame["number"])
        done = pack(answer)  # now, since what it takes is in no cache afterwards
        self._at = 0
        try:
            self._handlers[frame["op"]](frame, fds)
        except Exception as error:
            failed = {**answer, "op": "failed", "at": self._at}
            return pack({**failed, **describe(error)})
        return done

    def _map(self, frame: Frame, fds: list[int]) -> None:
        (fd,) = fds
        memory = SharedMemory.attach(fd, frame["nbytes"])
        self._memories[frame["memory"]] = memory

    def _unmap(self, frame: Frame, fds: list[int]) -> None:
        self._memories.pop(frame["memory"]).close()

    def _compile(self, frame: Frame, fds: list[int]) -> None:
        (fd,) = fds
        blob = SharedMemory.attach(fd, frame["plan"])
        plan = decode(blob.data.tobytes())
        places = {
            name: [self._view(*place) for place in slots]
            for name, slots in frame["segments"].items()
        }

        layout = Layout.of(plan, PRIVATE)
        kept = self._view(*frame["journal"])

        def allocate(
            name: str, slot: int, nbytes: int, fill: int | None
        ) -> HostSegment:
            if name in PRIVATE:
                return HostSegment(nbytes, fill)
            return HostSegment.over(kept if name == SEGMENT else places[name][slot])

        program = self._device.compile(
            layout.instrument(plan), {}, frame["slots"], allocate
        )
        journal = Journal(
            layout, kept, lambda name, slot: program.segment(name, slot).data
        )
        self._programs[frame["program"]] = Served(program, journal, {})

    def _csr(self, frame: Frame, fds: list[int]) -> None:
        (fd,) = fds
        served, name = self._programs[frame["program"]], frame["name"]
        memory = SharedMemory.attach(fd, frame["nbytes"])
        block = CsrBlock(served.program.plan.csr[name], memory)
        served.csr[name, frame["slot"]] = block

    def _launch(self, frame: Frame, fds: list[int]) -> None:
        if frame["after"] and self._failed:
            raise DeviceError("what comes before it has failed")
        self._failed = True
        for at, launch in enumerate(frame["launches"]):
            self._at = at
            self._run(frame["number"], *launch)
        self._failed = False

    def _run(
        self,
        number: int,
        of: int,
        section: Section,
        slot: int,
        seed: int,
        step: int,
        row: int,
        version: int,
        saved: int,
    ) -> None:
        served = self._programs[of]
        program, journal = served.program, served.journal
        for (name, belongs_to), block in served.csr.items():
            if belongs_to == slot:
                tensor = program.plan.csr[name]
                program.csr_place(tensor, slot).matrix = block.read()
        if "parameter" in program.segments:
            program.segments["parameter"].version = version
        journal.begin(section, slot, number, saved)
        try:
            program.launch(section, slot, StepKey(seed, step, row))
            program.wait()
        except BaseException:
            journal.undo(section, slot, number)
            raise
        finally:
            journal.end(section, number)

    def _close(self, frame: Frame, fds: list[int]) -> None:
        self._programs.pop(frame["program"]).program.close()

    def _view(self, memory: int, offset: int, nbytes: int) -> Any:
        data = self._memories[memory].data
        if not 0 <= offset <= offset + nbytes <= data.nbytes:
            raise ValueError(
                f"{nbytes} bytes at {offset} of a memory of {data.nbytes} bytes"
            )
        return data[offset : offset + nbytes]

    def _done(self, number: int) -> Frame:
        return {"op": "done", "number": number, "generation": self._generation}
