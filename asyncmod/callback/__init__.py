"""Callbacks of `fit`, `score` and the like, under MXNet's names."""

from asyncmod.callback.checkpoint import do_checkpoint, module_checkpoint
from asyncmod.callback.progress import (
    LogValidationMetricsCallback,
    ProgressBar,
    Speedometer,
    log_train_metric,
)
from asyncmod.module.callbacks import BatchEndParam

__all__ = [
    "BatchEndParam",
    "LogValidationMetricsCallback",
    "ProgressBar",
    "Speedometer",
    "do_checkpoint",
    "log_train_metric",
    "module_checkpoint",
]
