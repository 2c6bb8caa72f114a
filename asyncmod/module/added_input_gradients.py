"""Gradients of inputs that are added up over the steps, as a tree.

Parameters have one gradient whatever the shapes of a batch are; inputs have one for
each set of shapes that a module has executors for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncmod.io.batch import DataDesc
from asyncmod.module.executors import Executors
from runtime.executor.group import GroupSpec
from runtime.executor.split import is_empty, merge, select, split

Array = NDArray[Any]
Tree = list[dict[str, Any]]


async def as_tree(executors: Executors) -> Tree:
    """Arrays and plain data, one dict for each set of shapes that has such gradients.

    Its "gradients" are by name the parts of the devices that have rows.
    """
    tree = []
    for bound in executors.all:
        wishes = bound.group.spec.gradients
        gradients = {
            name: parts
            for name, parts in (await bound.group.device_input_gradients()).items()
            if wishes[name] == "add"
        }
        if gradients:
            shapes = {"data": _plain(bound.data), "labels": _plain(bound.labels)}
            tree.append({**shapes, "gradients": gradients})
    return tree


async def put_back(executors: Executors, tree: Tree) -> None:
    """Set what `as_tree` has made a tree of.

    Executors of other shapes than those that are there are made. On another number of
    devices the gradients are put together and split as a batch is.
    """
    for part in tree:
        bound = await executors.reshaped(
            _described(part["data"]), _described(part["labels"])
        )
        spec, gradients = bound.group.spec, part["gradients"]
        await bound.group.write_input_gradients(
            {name: _spread(name, parts, spec) for name, parts in gradients.items()}
        )


def _plain(descriptions: Sequence[DataDesc]) -> list[tuple[Any, ...]]:
    return [(d.name, d.shape, d.dtype.name, d.layout) for d in descriptions]


def _described(plain: Sequence[tuple[Any, ...]]) -> list[DataDesc]:
    return [DataDesc(*description) for description in plain]


def _spread(name: str, parts: Sequence[Array], spec: GroupSpec) -> list[Array]:
    """A gradient for each device with rows; they may be more or fewer than before."""
    rows = [r for r in split(spec.batch_size, spec.workload) if not is_empty(r)]
    if len(rows) == len(parts):
        return list(parts)
    axis = next(i.batch_axis for i in spec.data if i.name == name)
    if axis < 0:
        total: Array = np.sum(parts, axis=0)
        return [total, *(np.zeros_like(total) for _ in rows[1:])]
    whole = merge(parts, axis)
    return [whole[select(axis, share)] for share in rows]
