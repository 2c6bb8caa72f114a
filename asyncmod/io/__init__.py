"""Data iterators: batches, the iterator contract, and what stands on it."""

from asyncmod.io.adapter import as_async
from asyncmod.io.background import BackgroundTasks, current_background
from asyncmod.io.batch import BatchError, DataBatch, DataDesc
from asyncmod.io.iterator import BatchIterator, DataIter, IteratorError, State
from asyncmod.io.ndarray_iter import DataError, NDArrayIter
from asyncmod.io.prefetch import PrefetchingIter
from asyncmod.io.resize_iter import ResizeIter

__all__ = [
    "BackgroundTasks",
    "BatchError",
    "BatchIterator",
    "DataBatch",
    "DataDesc",
    "DataError",
    "DataIter",
    "IteratorError",
    "NDArrayIter",
    "PrefetchingIter",
    "ResizeIter",
    "State",
    "as_async",
    "current_background",
]
