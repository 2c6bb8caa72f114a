"""Every error that asyncmod raises on purpose, in one tree.

Each also derives from the family that MXNet raised in its place (in brackets), so
that old `except` clauses go on working::

    AsyncmodError
    ├── GraphError [ValueError]             a graph is not well formed
    │   ├── OperatorError                   unknown operator, wrong attribute
    │   └── ShapeError                      shapes or dtypes contradict each other
    ├── GradientError [RuntimeError]        no gradient to be had
    ├── DeviceError [RuntimeError]          a device failed or does not exist
    │   └── WorkerDied                      a worker process has ended
    ├── ClosedError [RuntimeError]          used after it was closed
    ├── ModuleStateError [AssertionError, RuntimeError]
    │   │                                   a call before its time: not bound, ...
    │   └── ScopeError                      outside Trio, or outside any runtime
    ├── ArgumentError [ValueError, AssertionError]
    │   │                                   a parameter has a value that cannot be
    │   ├── NameMismatchError               names that the symbol does not have
    │   └── InputError                      a batch does not fit what was bound
    ├── ArgumentTypeError [TypeError]       a parameter is of the wrong type
    ├── MissingParameterError [RuntimeError]
    │                                       a parameter is not presented
    ├── ExtraParameterError [ValueError]    a parameter that the symbol lacks
    ├── CheckpointError [OSError]           a checkpoint cannot be saved, or is invalid
    ├── NotAwaitedError [RuntimeError]      an `await` was forgotten
    └── UnsupportedError [NotImplementedError]
                                            asyncmod does not do that (yet)

Iterators, metrics and parameter files add their own leaves beside their code.
`StopTraining` is no error: a callback raises it to end `fit` in good order.
"""

from __future__ import annotations

from runtime.errors import (
    AsyncmodError,
    ClosedError,
    DeviceError,
    GradientError,
    GraphError,
    OperatorError,
    ShapeError,
    WorkerDied,
)

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "AsyncmodError",
    "CheckpointError",
    "ClosedError",
    "DeviceError",
    "ExtraParameterError",
    "GradientError",
    "GraphError",
    "InputError",
    "MissingParameterError",
    "ModuleStateError",
    "NameMismatchError",
    "NotAwaitedError",
    "OperatorError",
    "ScopeError",
    "ShapeError",
    "StopTraining",
    "UnsupportedError",
    "WorkerDied",
]


class ModuleStateError(AsyncmodError, AssertionError, RuntimeError):
    """A member was called in a state in which it means nothing."""


class ScopeError(ModuleStateError):
    """A module was used outside Trio, or outside any open runtime."""


class ArgumentError(AsyncmodError, ValueError, AssertionError):
    """A parameter has a value that cannot be."""


class NameMismatchError(ArgumentError):
    """Names were given that the symbol does not have, or not those that it has."""


class InputError(ArgumentError):
    """A batch does not fit what was bound: count, shape, dtype or a missing label."""


class ArgumentTypeError(AsyncmodError, TypeError):
    """A parameter is of the wrong type."""


class MissingParameterError(AsyncmodError, RuntimeError):
    """Values were given for some parameters, but not for this one."""


class ExtraParameterError(AsyncmodError, ValueError):
    """A value was given for a parameter that the symbol does not have."""


class CheckpointError(AsyncmodError, OSError):
    """A checkpoint cannot be saved, or a file is no valid checkpoint."""


class NotAwaitedError(AsyncmodError, RuntimeError):
    """A coroutine was made and never awaited, so that its work was never done."""


class UnsupportedError(AsyncmodError, NotImplementedError):
    """Something of MXNet's that asyncmod does not do; the message says what instead."""


class StopTraining(Exception):
    """Raise it in a callback: `fit` ends in good order and returns its history."""
