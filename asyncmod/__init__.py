"""MXNet's Module API, awaitable: train and serve symbol graphs under Trio.

`import asyncmod as mx`, then `mx.Module`, `mx.symbol`, `mx.io`, ... as in MXNet; what
takes time is awaited. Everything runs inside `mx.run(main)`. Parts are loaded when they
are first used, so that the import itself is light.

Next: `asyncmod.module.module`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncmod import (
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
    from asyncmod import optimizer as opt
    from asyncmod import symbol as sym
    from asyncmod import visualization as viz
    from asyncmod.context import Context, cpu, gpu, reference
    from asyncmod.executor import Executor, bind
    from asyncmod.interop.mxnet_checkpoint import load_checkpoint, save_checkpoint
    from asyncmod.launch import open_runtime, run
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
    from asyncmod.symbol import names as name

__all__ = [
    "AttrScope",
    "BaseModule",
    "BucketingModule",
    "Context",
    "Executor",
    "Module",
    "PythonLossModule",
    "PythonModule",
    "SequentialModule",
    "bind",
    "callback",
    "checkpoint",
    "context",
    "cpu",
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
    "open_runtime",
    "opt",
    "optimizer",
    "random",
    "reference",
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
    "init": "initializer",
    "kv": "kvstore",
    "mod": "module",
    "mon": "monitor",
    "name": "symbol.names",
    "opt": "optimizer",
    "sym": "symbol",
    "viz": "visualization",
}
_HOMES = {
    "AttrScope": "symbol",
    "BaseModule": "module",
    "BucketingModule": "module",
    "Context": "context",
    "Executor": "executor",
    "Module": "module",
    "PythonLossModule": "module",
    "PythonModule": "module",
    "SequentialModule": "module",
    "bind": "executor",
    "cpu": "context",
    "gpu": "context",
    "load_checkpoint": "model",
    "open_runtime": "launch",
    "reference": "context",
    "run": "launch",
    "save_checkpoint": "model",
    "seed": "random",
}
_NOT_HERE = {
    "gluon": "build nets from mx.symbol and train them with mx.Module",
    "autograd": "gradients come from mx.Module or mx.bind",
    "np": "arrays are NumPy's own: import numpy",
    "npx": "arrays are NumPy's own: import numpy",
    "contrib": "INT8 and other contributed parts are left out",
}


def __getattr__(name: str) -> Any:
    """Load a part of the library when it is first asked for."""
    if name in _HOMES:
        value = getattr(import_module(f"asyncmod.{_HOMES[name]}"), name)
    elif name in __all__:
        value = import_module(f"asyncmod.{_ALIASES.get(name, name)}")
    elif name in _NOT_HERE:
        raise AttributeError(f"asyncmod has no `{name}`: {_NOT_HERE[name]}")
    else:
        raise AttributeError(f"module 'asyncmod' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
