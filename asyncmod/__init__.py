"""MXNet's Module API, awaitable: train and serve symbol graphs under Trio.

`import asyncmod as mx`, then `mx.Module`, `mx.symbol`, `mx.io`, ... as in MXNet; what
takes time is awaited. Everything runs inside `mx.run(main)`.

Next: `asyncmod.module.module`.
"""

from asyncmod import (
    callback,
    context,
    errors,
    history,
    initializer,
    io,
    lr_scheduler,
    metric,
    model,
    nd,
    optimizer,
    random,
    symbol,
)
from asyncmod import module as mod
from asyncmod.context import Context, cpu, gpu, reference
from asyncmod.executor import Executor, bind
from asyncmod.model import load_checkpoint, save_checkpoint
from asyncmod.module import BaseModule, Module
from asyncmod.random import seed
from asyncmod.run import open_runtime, run
from asyncmod.symbol import AttrScope

init = initializer
opt = optimizer
sym = symbol

__all__ = [
    "AttrScope",
    "BaseModule",
    "Context",
    "Executor",
    "Module",
    "bind",
    "callback",
    "context",
    "cpu",
    "errors",
    "gpu",
    "history",
    "init",
    "initializer",
    "io",
    "load_checkpoint",
    "lr_scheduler",
    "metric",
    "mod",
    "model",
    "nd",
    "open_runtime",
    "opt",
    "optimizer",
    "random",
    "reference",
    "run",
    "save_checkpoint",
    "seed",
    "sym",
    "symbol",
]
