"""An executor group with the descriptions it was bound with: which batches fit.

Next: `runtime.executor.group`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncmod.io.batch import DataDesc
from asyncmod.module.batches import Array, Inputs
from runtime.executor.group import ExecutorGroup
from runtime.graph.ir import Shape


class Bound:
    """An executor group with what it expects of a batch.

    Attributes:
        group: The executors.
        data: The data inputs, in bound order.
        labels: The label inputs that are bound, in bound order.
        fed_labels: Those of them that the graph reads.
        can_train: Whether every label that training reads is bound.
        users: Calls that are about to use the group.
    """

    def __init__(
        self,
        group: ExecutorGroup,
        data: Sequence[DataDesc],
        labels: Sequence[DataDesc],
    ) -> None:
        self.group = group
        self.data = tuple(data)
        # Training needs every label of the graph; match_batch leaves it to others to
        # say so.
        bound = {description.name for description in labels}
        self._needs_labels = bool(group.spec.labels)
        self._has_csr = any(spec.stype == "csr" for spec in group.spec.inputs)
        self.can_train = all(spec.name in bound for spec in group.spec.labels)
        self.labels = tuple(labels)
        self.users = 0
        read = set(group.input_names)
        self.fed_labels = tuple(d for d in self.labels if d.name in read)
        self._data = [(d.name, d.shape, d.dtype) for d in self.data]
        self._labels = [(d.name, d.shape, d.dtype, d.name in read) for d in self.labels]

    def match_batch(self, batch: Any, is_train: bool) -> dict[str, Array] | None:
        """The inputs of a batch that fits in every respect; None to look closer.

        This is on the path of every step, so it only compares.
        """
        if self._has_csr:
            return None
        try:
            if batch.provide_data or batch.provide_label:
                return None
            data, labels = batch.data, batch.label
        except AttributeError:
            return None
        if len(data) != len(self._data):
            return None
        inputs: dict[str, Array] = {}
        for i, (name, shape, dtype) in enumerate(self._data):
            array = data[i]
            if not isinstance(array, np.ndarray):
                return None
            if array.shape != shape or array.dtype is not dtype:
                return None
            inputs[name] = array
        if is_train and self._needs_labels and not (labels and self.can_train):
            return None
        if not labels:
            return inputs
        if len(labels) != len(self._labels):
            return inputs if not self._labels else None
        for i, (name, shape, dtype, fed) in enumerate(self._labels):
            array = labels[i]
            if not isinstance(array, np.ndarray):
                return None
            if array.shape != shape or array.dtype is not dtype:
                return None
            if fed:
                inputs[name] = array
        return inputs

    def match(self, inputs: Inputs) -> dict[str, Array] | None:
        """The inputs if their shapes are those of this group, else None.

        Labels may be absent, and may have axes of one element too many or too few.
        """
        for description in self.data:
            if inputs.data[description.name].shape != description.shape:
                return None
        fed = dict(inputs.data)
        for description in self.fed_labels:
            array = inputs.labels.get(description.name)
            if array is None:
                continue
            if array.shape != description.shape:
                if _squeezed(array.shape) != _squeezed(description.shape):
                    return None
                array = array.reshape(description.shape)
            fed[description.name] = array
        return fed


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)
