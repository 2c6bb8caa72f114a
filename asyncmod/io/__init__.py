"""Data iterators: batches, the iterator contract, and what stands on it."""

from typing import NoReturn

from asyncmod.absent import ABSENT, refuse
from asyncmod.io.adapter import as_async
from asyncmod.io.background import BackgroundTasks, current_background
from asyncmod.io.batch import BatchError, DataBatch, DataDesc
from asyncmod.io.batch_cursor import TooFewRowsError
from asyncmod.io.bucket_sentence_iter import BucketSentenceIter, encode_sentences
from asyncmod.io.csv_iter import CSVIter
from asyncmod.io.file_arguments import FileArgumentError
from asyncmod.io.iterator import BatchIterator, DataIter, IteratorError, State
from asyncmod.io.libsvm_iter import LibSVMIter
from asyncmod.io.mnist_iter import MNISTIter
from asyncmod.io.ndarray_iter import DataError, NDArrayIter
from asyncmod.io.prefetch import PrefetchingIter
from asyncmod.io.resize_iter import ResizeIter
from asyncmod.io.table_reader import DataFileError
from asyncmod.scipy_sparse import MissingScipyError

__all__ = [
    "BackgroundTasks",
    "BatchError",
    "BatchIterator",
    "BucketSentenceIter",
    "CSVIter",
    "DataBatch",
    "DataDesc",
    "DataError",
    "DataFileError",
    "DataIter",
    "FileArgumentError",
    "IteratorError",
    "LibSVMIter",
    "MNISTIter",
    "MissingScipyError",
    "NDArrayIter",
    "PrefetchingIter",
    "ResizeIter",
    "State",
    "TooFewRowsError",
    "as_async",
    "current_background",
    "encode_sentences",
]


def __getattr__(name: str) -> NoReturn:
    """The iterators that are not here; the error says what is."""
    if name in ABSENT:
        raise refuse(f"mx.io.{name}", name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
