"""`mx.mod`: modules, which bind a symbol to devices and train it."""

from asyncmod.module.base import BaseModule
from asyncmod.module.bucketing import BucketingModule
from asyncmod.module.module import Module
from asyncmod.module.python_loss_module import PythonLossModule
from asyncmod.module.python_module import PythonModule
from asyncmod.module.sequential import SequentialModule

__all__ = [
    "BaseModule",
    "BucketingModule",
    "Module",
    "PythonLossModule",
    "PythonModule",
    "SequentialModule",
]
