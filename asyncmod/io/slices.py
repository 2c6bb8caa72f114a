"""Pre-sliced batches: MXNet's lists of one batch per device, joined into one.

The module splits the joined batch again, by its own rule, so that it does not matter
where the slices were cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import trio
from numpy.typing import NDArray

from asyncmod.io.batch import BatchError, DataBatch, DataDesc
from asyncmod.io.fairness import LARGE_COPY
from asyncmod.scipy_sparse import join_rows

Array = NDArray[Any]


def is_sliced(batch: Any) -> bool:
    """Whether this is a list of batches; arrays and lists of arrays are not."""
    return (
        isinstance(batch, list | tuple)
        and len(batch) > 0
        and all(hasattr(s, "data") and not hasattr(s, "__array__") for s in batch)
    )


async def whole(batch: Any, data: Sequence[Any], labels: Sequence[Any]) -> Any:
    """The batch itself, or its slices joined; in a thread if they have over 1 MB.

    Args:
        batch: A batch, or a list of batches.
        data: Descriptions of the data, which say where the batch axes are.
        labels: Descriptions of the labels.

    Raises:
        BatchError: slices that do not fit together.
    """
    if not is_sliced(batch):
        return batch
    arrays = [array for part in batch for array in (*part.data, *_labels(part))]
    if sum(getattr(array, "nbytes", 0) for array in arrays) > LARGE_COPY:
        return await trio.to_thread.run_sync(join_slices, batch, data, labels)
    return join_slices(batch, data, labels)


def join_slices(
    slices: Sequence[Any], data: Sequence[Any], labels: Sequence[Any]
) -> DataBatch:
    """One batch from one batch per device; see `whole`."""
    first = slices[0]
    keys = {getattr(part, "bucket_key", None) for part in slices}
    if len(keys) > 1:
        raise BatchError(f"the slices of a batch are of several buckets: {keys}")
    joined = DataBatch(
        _join("data", [part.data for part in slices], _axes(slices, data, "data")),
        _join("label", [_labels(p) for p in slices], _axes(slices, labels, "label")),
        _pad(slices, _axes(slices, data, "data")),
        bucket_key=keys.pop(),
    )
    indexes = [getattr(part, "index", None) for part in slices]
    if all(index is not None for index in indexes):
        joined.index = np.concatenate([np.asarray(index) for index in indexes])
    return replace(
        joined,
        provide_data=_described(first, "provide_data", joined.data),
        provide_label=_described(first, "provide_label", joined.label or ()),
    )


def _labels(part: Any) -> Sequence[Any]:
    labels: Sequence[Any] = getattr(part, "label", None) or ()
    return labels


def _axes(slices: Sequence[Any], bound: Sequence[Any], kind: str) -> list[int]:
    """The batch axis of each array: by the slices' own descriptions, else as bound."""
    described = getattr(slices[0], f"provide_{kind}", None) or bound
    return [
        DataDesc.get_batch_axis(getattr(description, "layout", None))
        for description in described
    ]


def _join(
    kind: str, parts: Sequence[Sequence[Any]], axes: Sequence[int]
) -> list[Array]:
    counts = [len(arrays) for arrays in parts]
    if len(set(counts)) > 1:
        raise BatchError(f"the slices of a batch have {counts} {kind} arrays")
    joined = []
    for position, arrays in enumerate(zip(*parts, strict=True)):
        axis = axes[position] if position < len(axes) else 0
        if hasattr(arrays[0], "tocsr"):
            joined.append(join_rows(arrays))
            continue
        given = [np.asarray(array) for array in arrays]
        try:
            joined.append(given[0] if axis < 0 else np.concatenate(given, axis))
        except ValueError as error:
            shapes = [array.shape for array in given]
            raise BatchError(
                f"{kind} array {position} has shapes {shapes} in the slices of a "
                f"batch, which cannot be joined on axis {axis}: {error}"
            ) from None
    return joined


def _pad(slices: Sequence[Any], axes: Sequence[int]) -> int:
    """Rows that only fill the joined batch up; they must all be at its end."""
    axis = max(axes[0] if axes else 0, 0)
    rows = [np.shape(part.data[0])[axis] if len(part.data) else 0 for part in slices]
    pads = [getattr(part, "pad", None) or 0 for part in slices]
    begun = False
    for count, pad in zip(rows, pads, strict=True):
        if begun and pad < count:
            raise BatchError(
                f"the slices of a batch have pads {pads} of {rows} rows; rows that "
                "only fill a batch up must be at its end"
            )
        begun = begun or pad > 0
    return sum(pads)


def _described(
    first: Any, field: str, arrays: Sequence[Array]
) -> list[DataDesc] | None:
    """The first slice's own descriptions, if any, with the joined shapes."""
    described = getattr(first, field, None)
    if not described:
        return None
    known = [d if isinstance(d, DataDesc) else DataDesc(*d) for d in described]
    return [
        DataDesc(d.name, array.shape, d.dtype, d.layout)
        for d, array in zip(known, arrays, strict=True)
    ]
