"""Checkpoints in asyncmod's own format, written off the training path.

The format is described in `docs/checkpoint-format.md`.

Next: `asyncmod.checkpoint.layout`.
"""

from asyncmod.checkpoint.header import Header
from asyncmod.checkpoint.mapped_file import CheckpointFile, Verify, open_checkpoint
from asyncmod.checkpoint.model import read_model, write_model
from asyncmod.checkpoint.retention import SavedFile, latest, saved_files
from asyncmod.checkpoint.settings import Checkpoint
from asyncmod.checkpoint.writer import write_checkpoint
from asyncmod.errors import CheckpointError

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointFile",
    "Header",
    "SavedFile",
    "Verify",
    "latest",
    "open_checkpoint",
    "read_model",
    "saved_files",
    "write_checkpoint",
    "write_model",
]
