"""Shapes of a bucket that is new: from its first batch, or from its data.

Next: `asyncmod.module.descriptions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncmod.io.batch import DataDesc
from asyncmod.module.descriptions import with_shape
from asyncmod.module.module import Module


def describe(
    batch: Any, module: Module, default: Module
) -> tuple[Sequence[DataDesc], Sequence[DataDesc]]:
    """Descriptions of the inputs of a new bucket, from its first batch.

    They are the batch's own if it has some; else its arrays, in the order of the
    default bucket's inputs. Labels that it lacks follow from the graph, so that the
    bucket can be trained later.
    """
    executors = default.core.need_executors("forward")
    data_like, labels_like = executors.first.data, executors.first.labels
    data = _described(
        batch.data, getattr(batch, "provide_data", None), module.data_names, data_like
    )
    labels = _described(
        getattr(batch, "label", None) or (),
        getattr(batch, "provide_label", None),
        module.label_names,
        labels_like,
    )
    return data, labels or infer_labels(module, data, default)


def infer_labels(
    module: Module, data: Sequence[Any], default: Module
) -> list[DataDesc]:
    """Descriptions of labels that follow from the data; none if they do not.

    None either if the default bucket is bound without labels.
    """
    like = default.core.need_executors("forward").first.labels
    symbol = module.symbol
    known = {name: shape for name, shape, *_ in data}
    shapes, _, _ = symbol.infer_shape_partial(**known)
    by_name = dict(zip(symbol.list_arguments(), shapes or (), strict=False))
    names = [name for name in module.label_names if name in by_name]
    if len(names) != len(like) or not all(by_name[name] for name in names):
        return []
    return [
        DataDesc(name, by_name[name], other.dtype, other.layout)
        for name, other in zip(names, like, strict=True)
    ]


def _described(
    arrays: Sequence[Any],
    provided: Any,
    names: Sequence[str],
    like: Sequence[DataDesc],
) -> list[Any]:
    if provided:
        return list(provided)
    if len(like) != len(names):
        like = [DataDesc(name, ()) for name in names]
    by_name = {description.name: description for description in like}
    if sorted(by_name) == sorted(names):
        names = [description.name for description in like]
    described = []
    for name, other, array in zip(names, like, arrays, strict=False):
        form = with_shape(by_name.get(name, other), np.shape(array))
        described.append(DataDesc(name, form.shape, form.dtype, form.layout))
    return described
