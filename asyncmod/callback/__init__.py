"""Callbacks of `fit`, `score` and the like: MXNet's, and two to end training well."""

from asyncmod.callback.best_parameters import BestParameters
from asyncmod.callback.checkpoint import do_checkpoint, module_checkpoint
from asyncmod.callback.early_stopping import EarlyStopping
from asyncmod.callback.progress import (
    LogValidationMetricsCallback,
    ProgressBar,
    Speedometer,
    log_train_metric,
)
from asyncmod.module.callbacks import BatchEndParam

__all__ = [
    "BatchEndParam",
    "BestParameters",
    "EarlyStopping",
    "LogValidationMetricsCallback",
    "ProgressBar",
    "Speedometer",
    "do_checkpoint",
    "log_train_metric",
    "module_checkpoint",
]
