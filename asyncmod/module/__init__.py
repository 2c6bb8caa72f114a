"""`mx.mod`: modules, which bind a symbol to devices and train it."""

from asyncmod.module.base import BaseModule
from asyncmod.module.bucketing import BucketingModule
from asyncmod.module.module import Module

__all__ = ["BaseModule", "BucketingModule", "Module"]
