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


class JoinedSteps:
    """See the module; made by `CpuProgram.join`."""

    def __init__(
        self, steps: Sequence[tuple[CpuProgram, CpuProgram]], library: Library
    ) -> None:
        self._trainings = [training for training, _ in steps]
        rows = []
        for training in self._trainings:
            rows += training.encoded(("pack", "forward", "backward"), 0)
        for training, update in steps:
            rows += training.encoded(("commit",), 0)
            rows += update.encoded(("update",), 0)
        self._table = np.stack(rows)
        self._address, self._rows = self._table.ctypes.data, len(rows)
        self._run = library.run

    def launch(self, keys: Sequence[StepKey]) -> None:
        """See `runtime.devices.fusing`."""
        for training, key in zip(self._trainings, keys, strict=True):
            training.announce(key)
        self._run(self._address, self._rows)
        for training, key in zip(self._trainings, keys, strict=True):
            training.stepped(0, key, training.versions())
        for training in self._trainings:
            training.changed("commit")
            training.changed("update")
