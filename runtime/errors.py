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


class ClosedError(AsyncmodError, RuntimeError):
    """The runtime, device or module was used after it was closed."""
