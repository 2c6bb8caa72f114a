"""Contexts: where a module runs. Small values; devices start when something is bound.

`Context("cpu", 0)` and `cpu(0)` are equal values.
"""

from __future__ import annotations

from runtime.context import DeviceId, current

__all__ = [
    "Context",
    "cpu",
    "cpu_pinned",
    "current_context",
    "gpu",
    "num_gpus",
    "reference",
]

Context = DeviceId
"""A device by kind, index, worker and threads; hashable and comparable."""


def cpu(device_id: int = 0, worker: str = "thread", threads: int = 1) -> Context:
    """A CPU device: native kernels, one operating system thread.

    Args:
        device_id: Number of the device; any number of them may share the machine.
        worker: "thread", or "process" for a worker process of its own.
        threads: Threads that compute for this device.
    """
    return DeviceId("cpu", device_id, worker, threads)


def gpu(device_id: int = 0, worker: str = "thread") -> Context:
    """A CUDA device; refused at `bind` where there is none.

    Args:
        device_id: CUDA's number of the device.
        worker: "thread", or "process" for a worker process of its own.
    """
    return DeviceId("gpu", device_id, worker)


def reference(device_id: int = 0, worker: str = "thread") -> Context:
    """The oracle: runs every operator by its NumPy definition, slowly.

    Args:
        device_id: Number of the device.
        worker: "thread", or "process" for a worker process of its own.
    """
    return DeviceId("reference", device_id, worker)


def cpu_pinned(device_id: int = 0) -> Context:
    """`cpu(device_id)`: pinning is done where a device needs it."""
    return cpu(device_id)


def current_context() -> Context:
    """Where modules run unless told: `cpu(0)`, or as `with mx.cpu(1):` says."""
    return current()


def num_gpus() -> int:
    """How many CUDA devices this version can use: 0."""
    return 0
