"""MXNet's Module API, awaitable: train and serve symbol graphs under Trio.

`import asyncmod as mx`, then `mx.Module`, `mx.symbol`, `mx.io`, ... as in MXNet; what
takes time is awaited. Everything runs inside `mx.run(main)`. Parts are loaded when they
are first used, so that the import itself is light.

Next: `asyncmod.module.fit_loop` to follow one batch, `asyncmod.symbol.symbol` to follow
one bind.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asyncmod.absent import ABSENT, refuse

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from asyncmod import (
        base,
        callback,
        checkpoint,
        context,
        errors,
        executor,
        history,
        initializer,
        interop,
        io,
        kvstore,
        lr_scheduler,
        metric,
        model,
        module,
        monitor,
        nd,
        operator,
        optimizer,
        random,
        rnn,
        symbol,
        testing,
        visualization,
    )
    from asyncmod import initializer as init
    from asyncmod import kvstore as kv
    from asyncmod import module as mod
    from asyncmod import monitor as mon
    from asyncmod import nd as ndarray
    from asyncmod import optimizer as opt
    from asyncmod import random as rnd
    from asyncmod import symbol as sym
    from asyncmod import visualization as viz
    from asyncmod.base import MXNetError
    from asyncmod.context import (
        Context,
        cpu,
        cpu_pinned,
        current_context,
        gpu,
        num_gpus,
        reference,
    )
    from asyncmod.executor import Executor, bind
    from asyncmod.interop.mxnet_checkpoint import load_checkpoint, save_checkpoint
    from asyncmod.launch import WorkerPolicy, open_runtime, run
    from asyncmod.module import (
        BaseModule,
        BucketingModule,
        Module,
        PythonLossModule,
        PythonModule,
        SequentialModule,
    )
    from asyncmod.random import seed
    from asyncmod.symbol import AttrScope
    from asyncmod.symbol import attribute_scope as attribute
    from asyncmod.symbol import names as name

__all__ = [
    "AttrScope",
    "BaseModule",
    "BucketingModule",
    "Context",
    "Executor",
    "MXNetError",
    "Module",
    "PythonLossModule",
    "PythonModule",
    "SequentialModule",
    "WorkerPolicy",
    "attribute",
    "base",
    "bind",
    "callback",
    "checkpoint",
    "context",
    "cpu",
    "cpu_pinned",
    "current_context",
    "errors",
    "executor",
    "gpu",
    "history",
    "init",
    "initializer",
    "interop",
    "io",
    "kv",
    "kvstore",
    "load_checkpoint",
    "lr_scheduler",
    "metric",
    "mod",
    "model",
    "module",
    "mon",
    "monitor",
    "name",
    "nd",
    "ndarray",
    "num_gpus",
    "open_runtime",
    "operator",
    "opt",
    "optimizer",
    "random",
    "reference",
    "rnd",
    "rnn",
    "run",
    "save_checkpoint",
    "seed",
    "sym",
    "symbol",
    "testing",
    "visualization",
    "viz",
]

_ALIASES = {
    "attribute": "symbol.attribute_scope",
    "init": "initializer",
    "kv": "kvstore",
    "mod": "module",
    "mon": "monitor",
    "name": "symbol.names",
    "ndarray": "nd",
    "opt": "optimizer",
    "rnd": "random",
    "sym": "symbol",
    "viz": "visualization",
}
_HOMES = {
    "AttrScope": "symbol",
    "BaseModule": "module",
    "BucketingModule": "module",
    "Context": "context",
    "Executor": "executor",
    "MXNetError": "base",
    "Module": "module",
    "PythonLossModule": "module",
    "PythonModule": "module",
    "SequentialModule": "module",
    "WorkerPolicy": "launch",
    "bind": "executor",
    "cpu": "context",
    "cpu_pinned": "context",
    "current_context": "context",
    "gpu": "context",
    "load_checkpoint": "model",
    "num_gpus": "context",
    "open_runtime": "launch",
    "reference": "context",
    "run": "launch",
    "save_checkpoint": "model",
    "seed": "random",
}


def __getattr__(name: str) -> Any:
    """Load a part of the library when it is first asked for."""
    if name in _HOMES:
        value = getattr(import_module(f"asyncmod.{_HOMES[name]}"), name)
    elif name in __all__:
        value = import_module(f"asyncmod.{_ALIASES.get(name, name)}")
    elif name in ABSENT:
        raise refuse(f"mx.{name}", name)
    else:
        raise AttributeError(f"module 'asyncmod' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
