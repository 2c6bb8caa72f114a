"""What iterators hand out: batches, and descriptions of the arrays in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from runtime.errors import AsyncmodError


class BatchError(AsyncmodError, AssertionError):
    """A batch or its description is not formed as it must be."""


class _NameAndShape(NamedTuple):
    name: str
    shape: tuple[int, ...]


class DataDesc(_NameAndShape):
    """Name and shape of one input, with its dtype and layout.

    It compares and unpacks as the pair (name, shape), as in MXNet.

    Attributes:
        name: The input's name.
        shape: Full shape, the batch axis included.
        dtype: NumPy dtype, float32 unless given.
        layout: One letter per axis; `N` marks the batch axis.
    """

    dtype: np.dtype[Any]
    layout: str | None

    def __new__(
        cls,
        name: str,
        shape: Sequence[int],
        dtype: DTypeLike = np.float32,
        layout: str | None = "NCHW",
    ) -> DataDesc:
        self = super().__new__(cls, name, tuple(int(size) for size in shape))
        self.dtype = np.dtype(dtype)
        self.layout = layout
        return self

    def __repr__(self) -> str:
        return f"DataDesc[{self.name},{self.shape},{self.dtype},{self.layout}]"

    @staticmethod
    def get_batch_axis(layout: str | None) -> int:
        """Position of `N` in `layout`: 0 without a layout, -1 without an `N`."""
        return 0 if layout is None else layout.find("N")

    @staticmethod
    def get_list(
        shapes: Sequence[tuple[str, Sequence[int]]],
        types: Sequence[tuple[str, DTypeLike]] | None = None,
    ) -> list[DataDesc]:
        """Descriptions for (name, shape) pairs and, by name, (name, dtype) pairs."""
        dtypes = dict(types or ())
        return [
            DataDesc(name, shape, dtypes.get(name, np.float32))
            for name, shape in shapes
        ]


@dataclass(eq=False, repr=False)
class DataBatch:
    """One batch of inputs.

    Attributes:
        data: One array per data input, in `provide_data`'s order.
        label: One array per label input; None or empty without labels.
        pad: How many rows at the end only fill the batch up.
        index: Row numbers in the source, where the iterator knows them.
        bucket_key: Which bucket the batch belongs to (BucketingModule).
        provide_data: Descriptions of `data`, where they differ from the bound ones.
        provide_label: Descriptions of `label`, likewise.

    Raises:
        BatchError: `data` or `label` is not a list or tuple of arrays.
    """

    data: Sequence[Any]
    label: Sequence[Any] | None = None
    pad: int | None = None
    index: Any = None
    bucket_key: Any = None
    provide_data: Sequence[DataDesc] | None = None
    provide_label: Sequence[DataDesc] | None = None

    def __post_init__(self) -> None:
        _check_list("data", self.data)
        if self.label is not None:
            _check_list("label", self.label)

    def __str__(self) -> str:
        data = [array.shape for array in self.data]
        label = None if not self.label else [array.shape for array in self.label]
        return f"DataBatch: data shapes: {data} label shapes: {label}"

    __repr__ = __str__


def _check_list(field: str, value: object) -> None:
    if not isinstance(value, list | tuple):
        raise BatchError(
            f"`{field}` of a DataBatch must be a list of arrays, not "
            f"{type(value).__name__}: write {field}=[array]"
        )
