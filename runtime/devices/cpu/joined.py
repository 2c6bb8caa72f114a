"""Short training steps of several devices, and their updates, in one native call.

Next: `runtime.kernels.cpu.vm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.devices.contract import StepKey
from runtime.kernels.cpu.library import Library

if TYPE_CHECKING:
    from runtime.devices.cpu.device import CpuProgram


STALE = [-1]
"""Versions that no segments have: the update has changed what was packed."""


class JoinedSteps:
    """See the module; made by `CpuProgram.join`."""

    def __init__(
        self, steps: Sequence[tuple[CpuProgram, CpuProgram]], library: Library
    ) -> None:
        self._trainings = [training for training, _ in steps]
        self._changed = [
            training.segments[name]
            for training in self._trainings
            for name in ("parameter", "auxiliary")
            if name in training.segments
        ]
        rows = []
        for training in self._trainings:
            rows += training.encoded(("pack", "forward", "backward"), 0)
        for training, update in steps:
            rows += training.encoded(("commit",), 0)
            rows += update.encoded(("update",), 0)
        self._table = np.stack(rows)
        self._run = library.runner(self._table)

    def launch(self, keys: Sequence[StepKey]) -> None:
        """See `runtime.devices.fusing`."""
        for index, training in enumerate(self._trainings):
            training.announce(keys[index])
        self._run()
        for index, training in enumerate(self._trainings):
            training.stepped(0, keys[index], STALE)
        for segment in self._changed:
            segment.version += 1
