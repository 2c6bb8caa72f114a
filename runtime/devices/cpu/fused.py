"""A whole training step in one native call: inputs, gradients, meeting, update.

Next: `runtime.kernels.cpu.two_phases`.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.actors.linger import depart
from runtime.actors.meeting import Meeting
from runtime.devices.contract import StepKey
from runtime.devices.fusing import Phases
from runtime.kernels.cpu.library import Library
from runtime.kernels.cpu.table import JOB_WORDS, KERNELS, ROW, JobWord, Outcome, encode

if TYPE_CHECKING:
    from runtime.devices.cpu.device import CpuProgram

Array = NDArray[Any]

_COPY_FIELDS = [field.name for field in KERNELS["copy"].fields]
_SOURCE = 1 + _COPY_FIELDS.index("x")
_COUNT = 1 + _COPY_FIELDS.index("inner")
_WORD_BYTES = 4  # what the copy kernel counts in

# Plain numbers: an enumeration's members cost ten times as much as indexes.
_MEETING, _OUTCOME = int(JobWord.MEETING), int(JobWord.OUTCOME)
_COMPUTED, _MET = int(JobWord.COMPUTED), int(JobWord.MET)

_Job = ctypes.c_int64 * JOB_WORDS


class FusedStep:
    """See the module; made by `CpuProgram.fuse`."""

    def __init__(
        self, training: CpuProgram, update: CpuProgram, slots: int, library: Library
    ) -> None:
        self._training = training
        self._update = update
        self._library = library
        self._run = library.run_two_phases()
        self._inputs = training.plan.tensors.get("input", {})
        self._dtypes = {n: np.dtype(t.dtype) for n, t in self._inputs.items()}
        self._row_of = {name: row for row, name in enumerate(self._inputs)}
        self._first = [self._first_table(slot) for slot in range(slots)]
        self._second = [self._second_table(slot) for slot in range(slots)]
        self._jobs = [self._job(slot) for slot in range(slots)]

    def launch(
        self,
        inputs: Mapping[str, Array],
        slot: int,
        key: StepKey,
        meeting: Meeting,
    ) -> Phases:
        training = self._training
        job, address = self._jobs[slot]
        # Nobody updates the parameters before this device has come to the meeting.
        versions = training.versions()
        self._write(inputs, slot)
        training.announce(key)
        job[_MEETING] = meeting.address
        begin = time.clock_gettime(time.CLOCK_MONOTONIC)
        depart()
        self._run(address)
        outcome = job[_OUTCOME]
        met = _seconds(job, _MET)
        if outcome == Outcome.WAITING and meeting.wait():
            met = time.clock_gettime(time.CLOCK_MONOTONIC)
            self._library.run(job[JobWord.SECOND_TABLE], job[JobWord.SECOND_ROWS])
            outcome = Outcome.DONE
        training.stepped(slot, key, versions)
        updated = outcome == Outcome.DONE
        if updated:
            training.changed("commit")
            training.changed("update")
        return Phases(
            updated,
            _seconds(job, _COMPUTED) - begin,
            time.clock_gettime(time.CLOCK_MONOTONIC) - met,
        )

    def _write(self, inputs: Mapping[str, Array], slot: int) -> None:
        """Have the inputs copied by the call if a plain copy is enough, else here."""
        table = self._first[slot]
        table[: len(self._row_of), _COUNT] = 0
        for name, array in inputs.items():
            tensor = self._inputs[name]
            if (
                array.dtype == self._dtypes[name]
                and array.shape == tensor.shape
                and array.flags.c_contiguous
                and array.nbytes % _WORD_BYTES == 0
            ):
                row = self._row_of[name]
                table[row, _SOURCE] = array.__array_interface__["data"][0]
                table[row, _COUNT] = array.nbytes // _WORD_BYTES
            else:
                self._training.write("input", name, array, slot)

    def _first_table(self, slot: int) -> NDArray[np.int64]:
        """Copies of the inputs, then forward and backward."""
        training = self._training
        copies = []
        for tensor in self._inputs.values():
            values = dict.fromkeys(_COPY_FIELDS, 0) | {"outer": 1, "middle": 1}
            values["y"] = training.pointer(tensor.address, slot)
            row = encode("copy", values)
            row[0] = self._library.address("copy")
            copies.append(row)
        rows = training.encoded(("pack", "forward", "backward"), slot)
        return _stacked([*copies, *rows])

    def _second_table(self, slot: int) -> NDArray[np.int64]:
        """The auxiliary states' commit and the update."""
        commit = self._training.encoded(("commit",), slot)
        return _stacked([*commit, *self._update.encoded(("update",), 0)])

    def _job(self, slot: int) -> tuple[ctypes.Array[ctypes.c_int64], int]:
        job = _Job()
        for table, address, rows in (
            (self._first[slot], JobWord.FIRST_TABLE, JobWord.FIRST_ROWS),
            (self._second[slot], JobWord.SECOND_TABLE, JobWord.SECOND_ROWS),
        ):
            job[address], job[rows] = table.ctypes.data, len(table)
        job[JobWord.CLOCK] = time.CLOCK_MONOTONIC
        return job, ctypes.addressof(job)


def _stacked(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.stack(rows) if rows else np.zeros((0, ROW), np.int64)


def _seconds(job: ctypes.Array[ctypes.c_int64], word: int) -> float:
    return job[word] + 1e-9 * job[word + 1]
