"""Prediction a few images at a time: what one row leaves for the next stays cached.

Rows that treat every image by itself, one behind the other, are repeated for block
after block of images. What only they use needs memory for one block, which is used
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.graph.draft import At, Buffer, Draft, NativeDraft, Operand

# The operands of these that are no images but hold all of them, one after the other.
_ROW_MAJOR = {"to_image": "x", "from_image": "y"}
# Rows cost memory, and time when they are compiled.
_MOST_BLOCKS = 32


@dataclass(frozen=True, slots=True)
class _Divisible:
    """A row, and how it falls apart.

    Attributes:
        draft: The row.
        count: The field that says how many images there are.
        steps: Bytes from one image to the next in the operands that have images.
    """

    draft: NativeDraft
    count: str
    steps: dict[str, int]

    @property
    def images(self) -> Operand:
        return self.draft.operands[self.count]

    def buffer(self, operand: str) -> Buffer:
        at = self.draft.operands[operand]
        assert isinstance(at, At)
        return at.buffer

    def part(self, first: int, count: int, own: dict[Buffer, Buffer]) -> NativeDraft:
        """The row for some images; `own` are buffers that begin with the first one."""
        draft = self.draft
        operands = draft.operands | {self.count: count}
        for name, step in self.steps.items():
            at = operands[name]
            assert isinstance(at, At)
            moved = At(at.buffer, at.offset + first * step)
            operands[name] = (
                At(own[at.buffer], at.offset) if at.buffer in own else moved
            )
        assert isinstance(self.images, int)
        cost = draft.cost * count / self.images
        return NativeDraft(draft.kernel, draft.node, operands, draft.writes, cost)


def in_blocks(drafts: Sequence[Draft], cache_bytes: int) -> list[Draft]:
    """Rearrange the rows of a prediction; see the module.

    Args:
        drafts: All of its rows.
        cache_bytes: Half of this is what the images of a block may take in a row.
    """
    uses = Counter(buffer for draft in drafts for buffer in draft.buffers)
    result: list[Draft] = []
    run: list[_Divisible] = []
    for draft in drafts:
        row = _divisible(draft)
        if run and (row is None or row.images != run[0].images):
            result += _blocks(run, uses, cache_bytes)
            run = []
        if row is None:
            result.append(draft)
        else:
            run.append(row)
    return result + _blocks(run, uses, cache_bytes) if run else result


def _divisible(draft: Draft) -> _Divisible | None:
    if not isinstance(draft, NativeDraft) or draft.operands.get("by_pixel"):
        return None
    operands = draft.operands
    count, suffix = (
        ("images", "_image") if "images" in operands else ("outer", "_outer")
    )
    steps: dict[str, int] = {}
    for name, value in operands.items():
        step = operands.get(name + suffix)
        if isinstance(value, At) and isinstance(step, int):
            steps[name] = 4 * step
    if draft.kernel in _ROW_MAJOR:
        sizes = (operands[name] for name in ("channels", "height", "width"))
        step = 4
        for size in sizes:
            assert isinstance(size, int)
            step *= size
        steps[_ROW_MAJOR[draft.kernel]] = step
    written = {name for name in draft.writes if isinstance(operands[name], At)}
    if not steps or 0 in steps.values() or not written <= steps.keys():
        return None
    return _Divisible(draft, count, steps)


def _blocks(
    run: Sequence[_Divisible], uses: Counter[Buffer], cache_bytes: int
) -> list[Draft]:
    whole: list[Draft] = [row.draft for row in run]
    images = run[0].images
    assert isinstance(images, int)
    largest = max(sum(row.steps.values()) for row in run)
    size = max(cache_bytes // 2 // largest, -(-images // _MOST_BLOCKS), 1)
    if len(run) == 1 or size >= images:
        return whole
    steps: dict[Buffer, int] = {}
    for row in run:
        for name, step in row.steps.items():
            if steps.setdefault(row.buffer(name), step) != step:
                return whole  # one buffer in two forms
    within = Counter(buffer for row in run for buffer in row.draft.buffers)
    in_images = Counter(row.buffer(name) for row in run for name in row.steps)
    if any(within[buffer] != in_images[buffer] for buffer in steps):
        return whole  # somebody reads all of it at once
    private = {
        buffer
        for buffer, step in steps.items()
        if buffer.place is None
        and uses[buffer] == within[buffer]
        and buffer.nbytes == images * step
    }
    result: list[Draft] = []
    for first in range(0, images, size):
        own = {buffer: _of_images(buffer, images, size) for buffer in private}
        count = min(size, images - first)
        result += [row.part(first, count, own) for row in run]
    return result


def _of_images(buffer: Buffer, images: int, size: int) -> Buffer:
    """Another buffer like this one, for fewer images."""
    geometry = buffer.geometry
    if geometry is not None:
        geometry = (size, *geometry[1:])
    nbytes = buffer.nbytes // images * size
    return Buffer(buffer.name, nbytes, segment=buffer.segment, geometry=geometry)
