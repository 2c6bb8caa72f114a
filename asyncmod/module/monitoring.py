"""What a module or an executor does for the monitors that are installed on it.

Next: `runtime.executor.observation`, which calls a recording with every value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncmod.errors import ArgumentTypeError
from asyncmod.module.step import Step
from asyncmod.monitor import Monitor, Result
from asyncmod.nd import NDArray
from runtime.executor.observation import Observed, Phase


class Monitoring:
    """The monitors of one module."""

    def __init__(self) -> None:
        self._monitors: list[Monitor] = []

    def install(self, monitor: Any) -> None:
        """Add a monitor; one that is there already stays once.

        Raises:
            ArgumentTypeError: it is no `mx.mon.Monitor`.
        """
        if not isinstance(monitor, Monitor):
            raise ArgumentTypeError(
                f"`mon` must be an mx.mon.Monitor, not {type(monitor).__name__}"
            )
        if monitor not in self._monitors:
            self._monitors.append(monitor)

    def begin(self) -> Recording | None:
        """A recording of the call that begins, if a monitor is active."""
        if not self._monitors:
            return None
        active = [monitor for monitor in self._monitors if monitor.activated]
        return Recording(self, active) if active else None


class Recording:
    """Statistics of one call, made on the device threads, kept apart by device."""

    def __init__(self, owner: Monitoring, monitors: Sequence[Monitor]) -> None:
        self._owner = owner
        self._shares = [_Share(monitor, monitor.step) for monitor in monitors]

    def begin(self) -> None:
        """Forget what was seen of a call that begins again."""
        for share in self._shares:
            share.results.clear()

    def __call__(self, seen: Observed) -> None:
        """Compute the statistics of a value."""
        for share in self._shares:
            if share.monitor.wants(seen.name, is_input=seen.is_input):
                value = seen.value.view(NDArray)
                value.flags.writeable = False
                try:
                    result = share.monitor.compute(value)
                except Exception as error:
                    error.add_note(f"in the monitor's `stat_func` for `{seen.name}`")
                    raise
                made = share.results[seen.phase, seen.device]
                made.append((share.step, seen.name, result))

    def deliver(self) -> None:
        """Hand the results over: forward before backward, device after device."""
        for share in self._shares:
            for phase in ("forward", "backward"):
                for device in share.devices(phase):
                    share.monitor.add(share.results[phase, device])
            for device in share.devices("argument"):
                results = share.results["argument", device]
                share.monitor.set_arguments((self._owner, device), results)

    async def complete(self, step: Step) -> None:
        """Wait for a dispatched step, and deliver its results if it succeeds."""
        try:
            await step.wait()
        except BaseException:
            await step.settle()
            raise
        self.deliver()


@dataclass
class _Share:
    """What one monitor gets of a call; each device's thread has lists of its own."""

    monitor: Monitor
    step: int
    results: dict[tuple[Phase, int], list[Result]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def devices(self, phase: Phase) -> list[int]:
        return sorted(device for made_in, device in self.results if made_in == phase)
