"""Setting the state inputs of all devices of a group.

Next: `runtime.executor.state_inputs` for what one device keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from runtime.executor.access import Access
from runtime.executor.checks import check_arrays
from runtime.executor.staged import AnyReplica

Array = NDArray[Any]


async def fill_states(access: Access, value: float) -> None:
    """Set every element of all state inputs."""

    def run(replica: AnyReplica) -> None:
        replica.states.fill(value)

    await access.each("write states", run, cheap=False)


async def set_states(access: Access, states: Mapping[str, Sequence[Array]]) -> None:
    """Set state inputs to arrays, one for every active device."""
    active = [replica for replica in access.replicas if not replica.is_idle]
    for name, arrays in states.items():
        if len(arrays) != len(active):
            raise ValueError(
                f"state `{name}` has {len(arrays)} arrays, but there are "
                f"{len(active)} devices with rows: give one for each"
            )
    parts: dict[int, Mapping[str, Array]] = {}
    for k, replica in enumerate(active):
        part = {name: arrays[k] for name, arrays in states.items()}
        parts[replica.index] = check_arrays("state", part, replica.states.shapes)

    def run(replica: AnyReplica) -> None:
        replica.states.set(parts.get(replica.index, {}))

    await access.each("write states", run, cheap=False)
