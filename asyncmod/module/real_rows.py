"""Which rows of labels and outputs a metric counts, and in which order.

Rows that only fill a batch up are left out. Sequence models with the batch on axis 1
flatten (time, batch, ...) to rows; these come time step by time step, and those of
several devices one device after another. They are brought into the order of the
labels, so that a metric is the same whatever the layout and the devices.

Next: `asyncmod.module.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asyncmod.module.batches import Array


@dataclass(frozen=True)
class RealRows:
    """How the samples of one batch lie in its labels and merged outputs.

    Attributes:
        rows: Samples in the batch, padding included.
        pad: Samples at the end that only fill the batch up.
        slices: Samples of each device, in order.
        label_axes: Batch axis of each label, -1 if it has none.
        output_axes: The same for each output.
        output_names: Names of the outputs, in order.
    """

    rows: int
    pad: int
    slices: Sequence[int]
    label_axes: Mapping[str, int]
    output_axes: Mapping[str, int]
    output_names: Sequence[str]

    @cached_property
    def are_all(self) -> bool:
        """Whether every row counts, in the order in which it lies there."""
        return self.pad <= 0 and 1 not in self.label_axes.values()

    def of_labels(self, labels: Mapping[str, Array]) -> dict[str, Array]:
        """The labels' real rows."""
        return {
            name: without_padding(
                label, self.rows, self.pad, self.label_axes.get(name, 0)
            )
            for name, label in labels.items()
        }

    def of_outputs(
        self, outputs: Mapping[str, Array], labels: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The outputs' real rows; `labels` are those of the whole batch."""
        return {
            name: self._of_output(output, self.output_axes.get(name, 0), labels)
            for name, output in outputs.items()
        }

    def _of_output(
        self, output: Array, axis: int, labels: Mapping[str, Array]
    ) -> Array:
        steps = self._steps(output, axis, labels)
        if steps == 1:
            return without_padding(output, self.rows, self.pad, axis)
        rest = output.shape[1:]
        ends = np.cumsum([steps * count for count in self.slices])[:-1]
        parts = [
            part.reshape(steps, count, *rest)
            for part, count in zip(np.split(output, ends), self.slices, strict=True)
        ]
        real = np.concatenate(parts, axis=1)[:, : self.rows - self.pad]
        return real.reshape(-1, *rest)

    def _steps(self, output: Array, axis: int, labels: Mapping[str, Array]) -> int:
        """Time steps of an output that was flattened from (time, batch); else 1."""
        for name, label in labels.items():
            shape = label.shape
            if axis == 0 and self.label_axes.get(name) == 1 and len(shape) == 2:
                if shape[1] == self.rows and output.shape[:1] == (label.size,):
                    return int(shape[0])
        return 1


def without_padding(array: Array, rows: int, pad: int, axis: int = 0) -> Array:
    """The part of an array that belongs to real samples.

    An axis may hold several rows per sample (sequences that a net has flattened); an
    array that is not batched is left as it is.

    Args:
        array: Labels or outputs of a whole batch.
        rows: Samples in the batch, padding included.
        pad: Samples at the end that only fill the batch up.
        axis: The batch axis, -1 if there is none.
    """
    if pad <= 0 or axis < 0 or array.ndim <= axis:
        return array
    length = array.shape[axis]
    if length < rows or length % rows:
        return array
    real = (rows - pad) * (length // rows)
    return array[(slice(None),) * axis + (slice(0, real),)]
