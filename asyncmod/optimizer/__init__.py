"""Optimizers in plain NumPy; devices run the fused form of those that name a rule."""

from asyncmod.optimizer.base import Optimizer, OptimizerError, create, register
from asyncmod.optimizer.sgd import SGD, Test, ccSGD
from asyncmod.optimizer.updater import OptimizerStatesError, Updater, get_updater

__all__ = [
    "SGD",
    "Optimizer",
    "OptimizerError",
    "OptimizerStatesError",
    "Test",
    "Updater",
    "ccSGD",
    "create",
    "get_updater",
    "register",
]
