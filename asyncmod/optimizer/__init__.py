"""Optimizers: their settings and counts; the formulas are rules that devices run."""

from asyncmod.optimizer.adagrad import AdaDelta, AdaGrad, GroupAdaGrad, RMSProp
from asyncmod.optimizer.adam import FTML, Adam, Adamax, Nadam
from asyncmod.optimizer.base import Optimizer, create, register
from asyncmod.optimizer.ftrl import Ftrl
from asyncmod.optimizer.langevin import SGLD
from asyncmod.optimizer.large_batch import LBSGD
from asyncmod.optimizer.layerwise import LAMB, LARS
from asyncmod.optimizer.momentum import DCASGD, NAG, Signum
from asyncmod.optimizer.settings import OptimizerError
from asyncmod.optimizer.sgd import SGD, Test, ccSGD
from asyncmod.optimizer.updater import OptimizerStatesError, Updater, get_updater

__all__ = [
    "DCASGD",
    "FTML",
    "LAMB",
    "LARS",
    "LBSGD",
    "NAG",
    "SGD",
    "SGLD",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "Adamax",
    "Ftrl",
    "GroupAdaGrad",
    "Nadam",
    "Optimizer",
    "OptimizerError",
    "OptimizerStatesError",
    "RMSProp",
    "Signum",
    "Test",
    "Updater",
    "ccSGD",
    "create",
    "get_updater",
    "register",
]
