"""Two tables of rows in one call, with a meeting of several threads in between."""

from __future__ import annotations

from runtime.kernels.cpu.linger import LOOKS, TURNS
from runtime.kernels.cpu.lowering import inlined
from runtime.kernels.cpu.table import JobWord, Outcome
from runtime.kernels.cpu.threads import (
    count_down,
    give_way,
    read_clock,
    read_shared,
    write_shared,
)
from runtime.kernels.cpu.vector import get_integer
from runtime.kernels.cpu.vm import run_rows

_run_rows = inlined(run_rows)

# Plain numbers, which compiled code can hold.
_FIRST_TABLE, _FIRST_ROWS = int(JobWord.FIRST_TABLE), int(JobWord.FIRST_ROWS)
_SECOND_TABLE, _SECOND_ROWS = int(JobWord.SECOND_TABLE), int(JobWord.SECOND_ROWS)
_MEETING, _OUTCOME, _CLOCK = (
    int(JobWord.MEETING),
    int(JobWord.OUTCOME),
    int(JobWord.CLOCK),
)
_COMPUTED, _MET = 8 * JobWord.COMPUTED, 8 * JobWord.MET  # in bytes
_FAILED, _DONE, _WAITING = (int(outcome) for outcome in Outcome)


@inlined
def all_have_come(missing: int, failed: int) -> int:
    """Wait a little for the others: a value of `table.Outcome`."""
    for _ in range(TURNS):
        for _ in range(LOOKS):
            if read_shared(failed) != 0:
                return _FAILED
            if read_shared(missing) == 0:
                return _DONE
        give_way()
    return _WAITING


def two_phases(job: int) -> None:
    """Run the job whose words are `table.JobWord`."""
    clock = get_integer(job, _CLOCK)
    meeting = get_integer(job, _MEETING)
    give_way()
    _run_rows(get_integer(job, _FIRST_TABLE), get_integer(job, _FIRST_ROWS))
    read_clock(clock, job + _COMPUTED)
    count_down(meeting)
    outcome = all_have_come(meeting, meeting + 8)
    read_clock(clock, job + _MET)
    if outcome == _DONE:
        _run_rows(get_integer(job, _SECOND_TABLE), get_integer(job, _SECOND_ROWS))
    write_shared(job + 8 * _OUTCOME, outcome)
