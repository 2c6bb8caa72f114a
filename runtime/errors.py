"""Errors that the runtime raises; `asyncmod.errors` draws the whole tree."""

from __future__ import annotations


class AsyncmodError(Exception):
    """Base of every error that asyncmod raises on purpose."""


class GraphError(AsyncmodError, ValueError):
    """A graph is not well formed: a name twice, a cycle, a wrong input."""


class OperatorError(GraphError):
    """An operator is unknown, or its attributes are unknown, missing or wrong."""


class ShapeError(GraphError):
    """Shapes or dtypes contradict each other or cannot be inferred."""


class GradientError(AsyncmodError, RuntimeError):
    """A gradient was asked for where there is none to be had."""


class DeviceError(AsyncmodError, RuntimeError):
    """A device failed, or was asked for something that it cannot do."""


class WorkerDied(DeviceError):
    """A worker process has ended, or was ended because it hung or broke the rules.

    Attributes:
        device: The device's name.
        operation: What it did, such as "step"; "nothing" if it was idle.
        step: Number of the training forward that it worked on; None outside of steps.
        pid: Its process id.
        signal: Number of the signal that ended it; None if it ended by itself.
        exit_code: Its exit code; None if a signal ended it.
        peak_memory: Bytes that it had in memory at most.
        stderr: The last that it wrote to its standard error.
    """

    device = ""
    operation = ""
    step: int | None = None
    pid = 0
    signal: int | None = None
    exit_code: int | None = None
    peak_memory = 0
    stderr = ""

    def again(self) -> WorkerDied:
        """The same news for another call, with notes of its own."""
        other = WorkerDied(*self.args)
        other.__dict__.update(self.__dict__)
        other.__notes__ = list(getattr(self, "__notes__", ()))
        return other


class ClosedError(AsyncmodError, RuntimeError):
    """The runtime, device or module was used after it was closed."""
