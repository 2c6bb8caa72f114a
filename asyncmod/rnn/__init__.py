"""mx.rnn: recurrent nets as graphs, cell by cell, and the data they are trained on.

Next: `asyncmod.rnn.base`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncmod.io.bucket_sentence_iter import BucketSentenceIter, encode_sentences
    from asyncmod.rnn.base import BaseRNNCell
    from asyncmod.rnn.cells import GRUCell, LSTMCell, RNNCell
    from asyncmod.rnn.checkpoint import (
        do_rnn_checkpoint,
        load_rnn_checkpoint,
        save_rnn_checkpoint,
    )
    from asyncmod.rnn.combined_cells import BidirectionalCell, SequentialRNNCell
    from asyncmod.rnn.convolutional_cells import (
        BaseConvRNNCell,
        ConvGRUCell,
        ConvLSTMCell,
        ConvRNNCell,
    )
    from asyncmod.rnn.fused_cell import FusedRNNCell
    from asyncmod.rnn.modifier_cells import (
        DropoutCell,
        ModifierCell,
        ResidualCell,
        ZoneoutCell,
    )
    from asyncmod.rnn.parameters import RNNParams

__all__ = [
    "BaseConvRNNCell",
    "BaseRNNCell",
    "BidirectionalCell",
    "BucketSentenceIter",
    "ConvGRUCell",
    "ConvLSTMCell",
    "ConvRNNCell",
    "DropoutCell",
    "FusedRNNCell",
    "GRUCell",
    "LSTMCell",
    "ModifierCell",
    "RNNCell",
    "RNNParams",
    "ResidualCell",
    "SequentialRNNCell",
    "ZoneoutCell",
    "do_rnn_checkpoint",
    "encode_sentences",
    "load_rnn_checkpoint",
    "save_rnn_checkpoint",
]

_HOMES = {
    "BaseConvRNNCell": "rnn.convolutional_cells",
    "BaseRNNCell": "rnn.base",
    "BidirectionalCell": "rnn.combined_cells",
    "BucketSentenceIter": "io.bucket_sentence_iter",
    "ConvGRUCell": "rnn.convolutional_cells",
    "ConvLSTMCell": "rnn.convolutional_cells",
    "ConvRNNCell": "rnn.convolutional_cells",
    "DropoutCell": "rnn.modifier_cells",
    "FusedRNNCell": "rnn.fused_cell",
    "GRUCell": "rnn.cells",
    "LSTMCell": "rnn.cells",
    "ModifierCell": "rnn.modifier_cells",
    "RNNCell": "rnn.cells",
    "RNNParams": "rnn.parameters",
    "ResidualCell": "rnn.modifier_cells",
    "SequentialRNNCell": "rnn.combined_cells",
    "ZoneoutCell": "rnn.modifier_cells",
    "do_rnn_checkpoint": "rnn.checkpoint",
    "encode_sentences": "io.bucket_sentence_iter",
    "load_rnn_checkpoint": "rnn.checkpoint",
    "save_rnn_checkpoint": "rnn.checkpoint",
}


def __getattr__(name: str) -> Any:
    """Load a cell or an iterator when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"asyncmod.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
