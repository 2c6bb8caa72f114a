"""From a device's name to the device.

Next: `runtime.devices.contract`.
"""

from __future__ import annotations

from runtime.devices.contract import Device
from runtime.devices.null import NullDevice
from runtime.devices.reference import ReferenceDevice
from runtime.devices.simulated import SimulatedDevice
from runtime.errors import DeviceError

KINDS = ("cpu", "gpu", "reference", "null", "simulated")


def create_device(kind: str, index: int = 0, worker: str = "thread") -> Device:
    """Make the device `kind(index)`.

    Raises:
        DeviceError: if there is no such kind, or it is not available here.
    """
    name = f"{kind}({index})"
    if kind not in KINDS:
        raise DeviceError(f"unknown device kind {kind!r}; there are {', '.join(KINDS)}")
    if index < 0:
        raise DeviceError(f"device index (={index}) must not be negative")
    if worker != "thread":
        raise DeviceError(
            f"worker (={worker!r}) of {name}: only 'thread' workers are available yet"
        )
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
