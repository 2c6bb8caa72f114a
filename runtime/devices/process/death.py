"""What is known of the end of a worker process, in words."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from runtime.errors import WorkerDied

_LINES = 60


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    Attributes:
        pid: Its process id.
        exit_code: As `subprocess` has it: the negative number of a signal, or a code.
        ended_here: Why its parent ended it; None if the parent did not.
        peak_memory: Bytes that it had in memory at most.
        oom_kills: Processes of its control group that the kernel killed for want of
            memory while it lived.
        stderr: The last that it wrote.
    """

    pid: int
    exit_code: int
    ended_here: str | None
    peak_memory: int
    oom_kills: int
    stderr: str

    def error(self, device: str, operation: str, step: int | None) -> WorkerDied:
        """The error to raise.

        Args:
            device: The device's name.
            operation: What it was doing.
            step: At which training forward.
        """
        at = "" if step is None else f" of step {step}"
        died = WorkerDied(
            f"the worker process of {device} (pid {self.pid}) {self._how()} "
            f"during {operation}{at}"
        )
        died.device, died.operation, died.step = device, operation, step
        died.pid, died.peak_memory, died.stderr = (
            self.pid,
            self.peak_memory,
            self.stderr,
        )
        if self.exit_code < 0:
            died.signal = -self.exit_code
        else:
            died.exit_code = self.exit_code
        if died.signal == signal.SIGKILL and self.ended_here is None:
            died.add_note(
                f"possibly out of memory: it had {self.peak_memory >> 20} MiB at most; "
                f"the kernel killed {self.oom_kills} processes of this control group "
                "for want of memory since it started"
            )
        lines = self.stderr.strip().splitlines()[-_LINES:]
        if lines:
            died.add_note("its last words:\n" + "\n".join(lines))
        return died

    def _how(self) -> str:
        if self.ended_here is not None:
            return f"was killed because {self.ended_here},"
        if self.exit_code < 0:
            return f"was killed by {signal_name(-self.exit_code)}"
        return f"ended with exit code {self.exit_code}"


def signal_name(number: int) -> str:
    """Such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
