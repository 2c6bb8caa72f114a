"""Batches as users hand them in, read into arrays by input name and checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncmod.errors import InputError
from asyncmod.io.batch import DataDesc
from asyncmod.module.descriptions import batch_axis
from asyncmod.module.sparse_inputs import as_csr

Array = NDArray[Any]
NUMERIC = "fiub"  # NumPy's kinds: real, integer, unsigned, boolean


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arrays of one batch by input name; `labels` is empty without labels."""

    data: Mapping[str, Array]
    labels: Mapping[str, Array]


def read_batch(
    batch: Any,
    data: Sequence[DataDesc],
    labels: Sequence[DataDesc],
    csr: Collection[str] = (),
) -> Inputs:
    """Read a batch against what is bound; shapes may still differ.

    Arrays go by the batch's own `provide_data` and `provide_label` where it has them,
    else by the order of the bound descriptions.

    Args:
        batch: Any object with `data` and perhaps `label`.
        data: What is bound for data.
        labels: What is bound for labels; labels of the batch are ignored without.
        csr: Inputs that are read as scipy.sparse CSR matrices.

    Raises:
        InputError: a wrong number of arrays, a wrong name, an array that is not
            numeric, or labels of another length than the data.
    """
    if not hasattr(batch, "data"):
        raise InputError(
            f"a batch must have an attribute `data`, a list of arrays; "
            f"{type(batch).__name__} has none: wrap arrays as DataBatch([array])"
        )
    provided = getattr(batch, "provide_data", None)
    read = _by_name("data", batch.data, provided, data, csr)
    given = getattr(batch, "label", None)
    if not labels or given is None or len(given) == 0:
        return Inputs(read, {})
    provided = getattr(batch, "provide_label", None)
    return Inputs(read, _by_name("label", given, provided, labels))


def _by_name(
    kind: str,
    arrays: Any,
    provided: Any,
    bound: Sequence[DataDesc],
    csr: Collection[str] = (),
) -> dict[str, Array]:
    if not isinstance(arrays, list | tuple):
        raise InputError(
            f"`{kind}` of a batch must be a list of arrays, not "
            f"{type(arrays).__name__}: write {kind}=[array]"
        )
    expected = [description.name for description in bound]
    names = [entry[0] for entry in provided] if provided else expected
    if sorted(names) != sorted(expected):
        raise InputError(
            f"the batch provides {kind} {names}, but the module is bound with "
            f"{expected}"
        )
    if len(arrays) != len(names):
        raise InputError(
            f"the batch has {len(arrays)} {kind} arrays; the module is bound with "
            f"{len(names)}: {', '.join(names)}"
        )
    return {
        name: as_csr(name, array) if name in csr else as_array(name, array)
        for name, array in zip(names, arrays, strict=True)
    }


def as_array(name: str, value: Any) -> Array:
    """Anything array-like as a NumPy array, without a copy where that can be.

    Raises:
        InputError: naming the input, if it is no array of numbers.
    """
    if not isinstance(value, np.ndarray):
        if hasattr(value, "tocsr"):
            raise InputError(
                f"`{name}` is a sparse matrix, and its variable is dense: declare it "
                f"as Variable({name!r}, stype='csr'), or give {name}.toarray()"
            )
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            value = np.from_dlpack(value)
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise InputError(f"`{name}` is no array: {error}") from None
    if value.dtype.kind not in NUMERIC:
        raise InputError(
            f"`{name}` has dtype {value.dtype}; it must be an array of real numbers, "
            "integers or booleans"
        )
    array: Array = value
    return array


def check_rows(inputs: Inputs, described: Sequence[DataDesc]) -> None:
    """Check that all batched arrays of a batch have the same number of rows.

    Raises:
        InputError: naming the first that differs.
    """
    first: tuple[str, int] | None = None
    arrays = {**inputs.data, **inputs.labels}
    for description in described:
        axis, name = batch_axis(description), description.name
        if axis < 0 or name not in arrays:
            continue
        shape = arrays[name].shape
        if axis >= len(shape):
            raise InputError(
                f"`{name}` has shape {shape}, but its layout {description.layout!r} "
                f"puts the batch on axis {axis}"
            )
        if first is None:
            first = (name, shape[axis])
        elif shape[axis] != first[1]:
            raise InputError(
                f"`{name}` has shape {shape}, that is {shape[axis]} rows, but "
                f"`{first[0]}` has {first[1]}; all inputs of a batch must have the "
                "same batch size"
            )
