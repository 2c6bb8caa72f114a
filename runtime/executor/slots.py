"""The slots of a device's programs: copies of inputs and outputs, one per use.

Steps in flight take the training program's slots in turn. In the inference program
`forward` leaves its outputs in a slot of its own, so that `predict` in another task
cannot disturb them.
"""

from __future__ import annotations

from collections.abc import Iterable

from runtime.devices.contract import Program

FORWARD_SLOT, PREDICT_SLOT, INFERENCE_SLOTS = 0, 1, 2


def own_nbytes(programs: Iterable[tuple[Program, int]], storage: Program) -> int:
    """Bytes of programs' own segments, without those of the storage they share.

    Args:
        programs: Each with its number of slots.
        storage: What holds the shared segments.
    """
    return sum(
        nbytes * (slots if name in program.plan.slotted else 1)
        for program, slots in programs
        for name, nbytes in program.plan.segments.items()
        if name not in storage.segments
    )
