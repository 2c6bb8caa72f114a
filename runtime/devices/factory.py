"""From a device's name to the device.

Next: `runtime.devices.contract`.
"""

from __future__ import annotations

from runtime.devices.contract import Device, Home
from runtime.devices.null import NullDevice
from runtime.devices.reference import ReferenceDevice
from runtime.devices.simulated import SimulatedDevice
from runtime.errors import DeviceError

KINDS = ("cpu", "gpu", "reference", "null", "simulated")


WORKERS = ("thread", "process")
_IN_PROCESSES = ("cpu", "reference")


def create_device(
    kind: str, index: int = 0, worker: str = "thread", home: Home | None = None
) -> Device:
    """Make the device `kind(index)`.

    Args:
        kind: One of `KINDS`.
        index: Which one of its kind.
        worker: "thread" to run on the thread that uses it, "process" to run in a
            process that this thread starts.
        home: Who owns the process.

    Raises:
        DeviceError: if there is no such kind, or it is not available here.
    """
    name = f"{kind}({index})"
    if kind not in KINDS:
        raise DeviceError(f"unknown device kind {kind!r}; there are {', '.join(KINDS)}")
    if index < 0:
        raise DeviceError(f"device index (={index}) must not be negative")
    if worker not in WORKERS:
        raise DeviceError(
            f"worker (={worker!r}) of {name} must be one of {', '.join(WORKERS)}"
        )
    if worker == "process":
        if kind not in _IN_PROCESSES:
            raise DeviceError(
                f"worker (='process') of {name}: only {' and '.join(_IN_PROCESSES)} "
                "devices run in processes"
            )
        from runtime.devices.process.device import ProcessDevice

        return ProcessDevice.open(create_device(kind, index), kind, index, home)
    if kind == "gpu":
        raise DeviceError(f"{name} is not available: there is no CUDA device yet")
    if kind == "reference":
        return ReferenceDevice(name)
    if kind == "null":
        return NullDevice(name)
    if kind == "simulated":
        return SimulatedDevice(name)
    from runtime.devices.cpu.device import CpuDevice

    return CpuDevice(name)
