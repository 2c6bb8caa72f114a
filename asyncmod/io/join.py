"""Joining the batches and descriptions of several iterators into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncmod.io.batch import BatchError, DataBatch, DataDesc

Rename = Sequence[Mapping[str, str]] | None


def check_rename(argument: str, rename: Rename, count: int) -> None:
    """Refuse a list of renames that does not have one dict per iterator."""
    if rename is not None and len(rename) != count:
        raise ValueError(
            f"`{argument}` must hold one dict per iterator: {count}, not {len(rename)}"
        )


def join_descriptions(parts: Sequence[Sequence[Any]], rename: Rename) -> list[DataDesc]:
    """All descriptions in order, under their new names."""
    return [
        _renamed(description, rename[i] if rename else {})
        for i, part in enumerate(parts)
        for description in part
    ]


def join_batches(
    batches: Sequence[DataBatch], rename_data: Rename, rename_label: Rename
) -> DataBatch:
    """One batch with the arrays of all; pad, index and bucket key are the first's.

    Raises:
        BatchError: the pads differ.
    """
    first = batches[0]
    if len(batches) == 1 and rename_data is None and rename_label is None:
        return first
    pads = [getattr(batch, "pad", None) or 0 for batch in batches]
    if len(set(pads)) > 1:
        raise BatchError(
            f"Number of entry mismatches between iterators: their pads are {pads}; "
            "give all the same number of rows and batch size"
        )
    return DataBatch(
        [array for batch in batches for array in batch.data],
        [array for batch in batches for array in getattr(batch, "label", None) or []],
        getattr(first, "pad", None),
        getattr(first, "index", None),
        getattr(first, "bucket_key", None),
        _of_batches(batches, "provide_data", rename_data),
        _of_batches(batches, "provide_label", rename_label),
    )


def _of_batches(
    batches: Sequence[DataBatch], field: str, rename: Rename
) -> list[DataDesc] | None:
    parts = [getattr(batch, field, None) for batch in batches]
    known = [part for part in parts if part is not None]
    return join_descriptions(known, rename) if len(known) == len(parts) else None


def _renamed(description: Any, names: Mapping[str, str]) -> DataDesc:
    if not isinstance(description, DataDesc):
        description = DataDesc(*description)
    known: DataDesc = description
    name = names.get(known.name, known.name)
    if name == known.name:
        return known
    return DataDesc(name, known.shape, known.dtype, known.layout)
