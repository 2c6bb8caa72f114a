"""`mx.model`: checkpoints without a module, under their old names."""

from asyncmod.interop.mxnet_checkpoint import load_checkpoint, save_checkpoint
from asyncmod.module.callbacks import BatchEndParam

__all__ = ["BatchEndParam", "load_checkpoint", "save_checkpoint"]
