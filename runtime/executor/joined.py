"""A step of all devices in one launch on the Trio thread, where it is that short.

Next: `runtime.devices.fusing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from runtime.devices.contract import Program
from runtime.devices.fusing import Joined, joining
from runtime.executor.replica import Replica
from runtime.executor.staged import AnyReplica

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class JoinedReplicas:
    """See the module; made by `join`."""

    replicas: Sequence[Replica]
    joined: Joined

    def run(self, inputs: Mapping[str, Array]) -> None:
        """Forward, backward, commit and update of a step on all devices."""
        replicas = self.replicas
        self.joined.launch([replica.begin_joined(inputs) for replica in replicas])
        for replica in replicas:
            replica.end_joined()


def join(
    replicas: Sequence[AnyReplica], updates: Sequence[Program | None]
) -> JoinedReplicas | None:
    """All replicas with their updates as one; None if they cannot be."""
    able = [replica for replica in replicas if isinstance(replica, Replica)]
    trainings = [replica.training for replica in able]
    steps = [
        (training, update)
        for training, update in zip(trainings, updates, strict=False)
        if training is not None and update is not None
    ]
    first = joining(trainings[0]) if len(steps) == len(replicas) else None
    joined = None if first is None else first.join(steps)
    return None if joined is None else JoinedReplicas(able, joined)
