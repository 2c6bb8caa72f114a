"""One update on its way, as the device threads that make it share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.actors.barrier import Barrier
from runtime.executor.accumulation import Part
from runtime.executor.row_sparse import Gradient
from runtime.executor.step_numbers import StepNumbers

Array = NDArray[Any]
Undo = Callable[[], bool]


class Step:
    """One update, as its device threads share it.

    Attributes:
        part: What it does for an accumulation of several batches, if anything.
        hyper: The rule's numbers for this step.
        error: Why there are none.
        computed, reduced, applied: Barriers after the phases; none if these are fused.
        prepared: Another one, where the update computes something beside.
        gradients: Per device its gradients on the host, if they cross.
        undo: What takes back what has been done to the parameters and states.
        numbers: Who has counted it, once it is dispatched.
        compute_seconds, reduce_seconds: Per device.
    """

    __slots__ = (
        "applied",
        "compute_seconds",
        "computed",
        "error",
        "gradients",
        "hyper",
        "numbers",
        "part",
        "prepared",
        "reduce_seconds",
        "reduced",
        "undo",
        "weights",
    )

    def __init__(
        self, devices: int, part: Part | None = None, *, fused: bool = False
    ) -> None:
        self.part = part
        self.hyper: NDArray[np.float64] | None = None
        self.error: Exception | None = None
        if not fused:
            self.computed = Barrier(devices)
            self.reduced = Barrier(devices)
            self.applied = Barrier(devices)
        self.prepared: Barrier | None = None
        self.gradients: list[dict[str, Gradient]] = [{}] * devices
        self.weights: dict[str, Array] = {}
        self.undo: list[Undo] = []
        self.numbers: StepNumbers | None = None
        self.compute_seconds = [0.0] * devices
        self.reduce_seconds = [0.0] * devices

    @property
    def updates(self) -> bool:
        """Whether it updates the parameters, besides adding gradients up."""
        return self.part is None or self.part.updates
