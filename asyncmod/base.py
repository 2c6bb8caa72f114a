"""`mx.base`: MXNet's name for its errors, so that old `except` clauses work."""

from asyncmod.errors import AsyncmodError as MXNetError

__all__ = ["MXNetError"]
