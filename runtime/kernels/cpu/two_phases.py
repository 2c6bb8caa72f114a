"""Two tables of rows in one call, with a meeting of several threads in between."""

from __future__ import annotations

from runtime.kernels.cpu.linger import LOOKS, TURNS
from runtime.kernels.cpu.threads import (
    count_down,
    give_way,
    read_clock,
    read_shared,
    write_shared,
)
from runtime.kernels.cpu.vector import get_integer, inlined
from runtime.kernels.cpu.vm import run_rows

_run_rows = inlined(run_rows)


@inlined
def all_have_come(missing: int, failed: int) -> int:
    """Wait a little for the others: a value of `table.Outcome`."""
    for _ in range(TURNS):
        for _ in range(LOOKS):
            if read_shared(failed) != 0:
                return 0
            if read_shared(missing) == 0:
                return 1
        give_way()
    return 2


def two_phases(job: int) -> None:
    """Run the job whose words are `table.JobWord`."""
    clock = get_integer(job, 6)
    meeting = get_integer(job, 4)
    _run_rows(get_integer(job, 0), get_integer(job, 1))
    read_clock(clock, job + 8 * 7)
    count_down(meeting)
    outcome = all_have_come(meeting, meeting + 8)
    read_clock(clock, job + 8 * 9)
    if outcome == 1:
        _run_rows(get_integer(job, 2), get_integer(job, 3))
    write_shared(job + 8 * 5, outcome)
