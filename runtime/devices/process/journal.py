"""What a section is about to overwrite, kept until it is certain that nobody needs it.

A worker may die at any instant. Before it runs a section that changes memory in place
it saves that memory here, and counts; after it, it counts again. The journal lies in
shared memory, so that its parent can tell what had happened, put back what was there
before, and run the section once more as if it had never begun. A dead process has
finished all its stores up to the instruction that it died at and none after it, which
is why plain words suffice.

Of a table of which a lazy update changes some rows, these rows are saved: their numbers
lie there before the section begins. Of a row-sparse array to which a section adds, the
rows are saved that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.graph.plan import (
    ALIGNMENT,
    DefinitionRow,
    NativeRow,
    Plan,
    Row,
    RowSparseTensor,
    Section,
    Span,
    Tensor,
    round_up,
    spans,
)

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
_SAVED, _DONE = 0, 1  # words of a section's header: numbers of launches


@dataclass(frozen=True)
class Rows:
    """Some rows that a section overwrites, of a table or of a row-sparse array.

    Attributes:
        numbers: Which: int64, how many there are, then their numbers.
        table: The table, or the values of the row-sparse array, which come first in
            their memory.
        row: Bytes of a row.
        changes: Whether the numbers change with the rows, as a row-sparse array's do.
    """

    numbers: Span
    table: Span
    row: int
    changes: bool = False

    @classmethod
    def of(cls, numbers: Tensor, table: Tensor) -> Rows:
        """The rows of a table that have these numbers."""
        (where,), (whole,) = spans([numbers]), spans([table])
        return cls(where, whole, table.nbytes // max(table.shape[0], 1))

    @classmethod
    def of_place(cls, place: RowSparseTensor) -> Rows:
        """The rows that a row-sparse array has."""
        numbers, table = spans([place])
        row = place.values.nbytes // max(place.values.shape[0], 1)
        return cls(numbers, table, row, changes=True)

    def where(self, numbers: Numbers) -> slice | Numbers:
        """Where in the table they are, by their count and numbers."""
        return slice(int(numbers[0])) if self.changes else numbers[1:]


@dataclass(frozen=True)
class Entry:
    """One section's part of a journal.

    Attributes:
        header: Where its words are.
        kept: Each span, and where its copy is.
        rows: Rows of each table, where the copies of their numbers and of them are.
    """

    header: int
    kept: tuple[tuple[Span, int], ...]
    rows: tuple[tuple[Rows, int, int], ...]


@dataclass(frozen=True)
class Layout:
    """Where a program's journal keeps what; the same in both processes."""

    entries: Mapping[Section, Entry]
    nbytes: int

    @property
    def by_rows(self) -> list[tuple[int, int]]:
        """Where copies of rows are: from the beginning as far as there are some."""
        return [
            (at, at + span.end - span.begin)
            for entry in self.entries.values()
            for rows, *places in entry.rows
            for at, span in zip(places, (rows.numbers, rows.table), strict=True)
        ]

    @classmethod
    def of(cls, plan: Plan, private: frozenset[str]) -> Layout:
        """The journal of a plan; `private` segments die with their process."""
        entries: dict[Section, Entry] = {}
        offset = 0

        def take(span: Span) -> int:
            nonlocal offset
            begin, offset = offset, round_up(offset + span.end - span.begin)
            return begin

        changed, rows = _changed(plan, private), _changed_rows(plan)
        for section in (*changed, *(s for s in rows if s not in changed)):
            header, offset = offset, offset + ALIGNMENT
            entries[section] = Entry(
                header,
                tuple((span, take(span)) for span in changed.get(section, ())),
                tuple(
                    (r, take(r.numbers), take(r.table)) for r in rows.get(section, ())
                ),
            )
        return cls(entries, offset)


class Journal:
    """The journal of one program, over its bytes and those of the segments.

    Args:
        layout: Where it keeps what.
        data: Its own bytes.
        segment: The bytes of a segment by name and slot.
    """

    def __init__(
        self, layout: Layout, data: Bytes, segment: Callable[[str, int], Bytes]
    ) -> None:
        self._entries: dict[Section, tuple[NDArray[np.int64], Entry]] = {
            section: (data[e.header : e.header + 16].view(np.int64), e)
            for section, e in layout.entries.items()
        }
        self._data = data
        self._segment = segment

    def begin(self, section: Section, slot: int, number: int) -> None:
        """Save what the section will change, and count it."""
        if section in self._entries:
            self.save(section, slot)
            self._entries[section][0][_SAVED] = number

    def save(self, section: Section, slot: int) -> None:
        """Copy what the section will change."""
        _, entry = self._entries[section]
        for span, offset in entry.kept:
            size = span.end - span.begin
            self._data[offset : offset + size] = self._place(span, slot)
        for rows, numbers_at, rows_at in entry.rows:
            numbers = _counted(self._place(rows.numbers, slot))
            _counted(self._data[numbers_at:], len(numbers))[:] = numbers
            table = self._place(rows.table, slot).reshape(-1, rows.row)
            self._rows(rows, rows_at, numbers)[...] = table[rows.where(numbers)]

    def end(self, section: Section, number: int) -> None:
        """The section has run, or nothing of it has taken effect."""
        if section in self._entries:
            self._entries[section][0][_DONE] = number

    def has_begun(self, section: Section, number: int) -> bool:
        """Whether a launch is known to have begun."""
        entry = self._entries.get(section)
        return entry is not None and bool(entry[0][_SAVED] >= number)

    def recover(self, section: Section, slot: int, number: int) -> bool:
        """After a death: True if the launch was complete, else it never began."""
        if section not in self._entries:
            return False
        words, _ = self._entries[section]
        if words[_DONE] >= number or words[_SAVED] > number:
            return True
        self.undo(section, slot, number)
        return False

    def undo(self, section: Section, slot: int, number: int) -> None:
        """Put back what was there before this launch; nothing if it did not begin."""
        if section not in self._entries:
            return
        words, entry = self._entries[section]
        if words[_SAVED] != number:
            return
        for span, offset in entry.kept:
            size = span.end - span.begin
            self._place(span, slot)[:] = self._data[offset : offset + size]
        for rows, numbers_at, rows_at in entry.rows:
            numbers = _counted(self._data[numbers_at:])
            if rows.changes:
                place = self._place(rows.numbers, slot)
                _counted(place, len(numbers))[:] = numbers
            table = self._place(rows.table, slot).reshape(-1, rows.row)
            table[rows.where(numbers)] = self._rows(rows, rows_at, numbers)

    def _place(self, span: Span, slot: int) -> Bytes:
        return self._segment(span.segment, slot)[span.begin : span.end]

    def _rows(self, rows: Rows, offset: int, numbers: Numbers) -> Bytes:
        """The copies of these rows."""
        count = len(numbers) - 1
        return self._data[offset : offset + count * rows.row].reshape(count, rows.row)


def _counted(data: Bytes, length: int | None = None) -> Numbers:
    """How many numbers there are, and they; or so many words."""
    words = data.view(np.int64)
    return words[: 1 + int(words[0]) if length is None else length]


_IN_PLACE: tuple[Section, ...] = ("add", "commit", "update")


def _changed(plan: Plan, private: frozenset[str]) -> dict[Section, tuple[Span, ...]]:
    """What cannot be had again by running a section again, or must be taken back.

    A forward reads nothing that it writes. A backward does where gradients are added
    up, and so does the sum over batches. Commit and update are the two that must happen
    on all devices or on none.
    """
    changed: dict[Section, tuple[Span, ...]] = {}
    ends = {
        (span.segment, span.end)
        for tensors in plan.tensors.values()
        for span in spans(tensors.values())
    }
    dense = [t for t in plan.accumulated if isinstance(t, Tensor)]
    if dense:
        sums = _merged(spans(dense), ends)
        changed |= {"backward": sums, "step": sums}
    for section in _IN_PLACE:
        rows = plan.sections.get(section, ())
        written = [s for row in rows if not _some_rows(row) for s in row.writes]
        if written:
            kept = (span for span in written if span.segment not in private)
            changed[section] = _merged(kept, ends)
    return changed


def _changed_rows(plan: Plan) -> dict[Section, list[Rows]]:
    """What of it is some rows of a table, or of a row-sparse array."""
    changed: dict[Section, list[Rows]] = {}
    sums = [
        Rows.of_place(t) for t in plan.accumulated if isinstance(t, RowSparseTensor)
    ]
    if sums:
        changed |= {"backward": sums, "step": sums}
    for section in _IN_PLACE:
        rows = [r for row in plan.sections.get(section, ()) for r in _some_rows(row)]
        if rows:
            changed[section] = rows
    return changed


def _some_rows(row: Row) -> list[Rows]:
    """The rows that are all that a row of the plan changes; none if it is not so."""
    if isinstance(row, NativeRow):
        return [Rows.of(table.rows, table.values) for table in row.tables]
    if not isinstance(row, DefinitionRow):
        return []
    if row.operator == "rows=":
        (source,), (target,) = row.inputs, row.outputs
        assert isinstance(source, RowSparseTensor)
        assert isinstance(target, Tensor)
        return [Rows.of(source.rows, target)]
    places = [t for t in row.outputs if isinstance(t, RowSparseTensor)]
    return list(map(Rows.of_place, places))


def _merged(
    pieces: Iterable[Span], ends: Collection[tuple[str, int]]
) -> tuple[Span, ...]:
    """Spans that follow one another as one, over the padding behind whole tensors.

    What lies behind the end of a piece of a tensor may be another device's.
    """
    merged: list[Span] = []
    for span in sorted(pieces, key=lambda s: (s.segment, s.begin)):
        if merged:
            last = merged[-1]
            end = last.end
            if (last.segment, end) in ends:
                end = round_up(end)
            if last.segment == span.segment and span.begin <= end:
                merged[-1] = Span(last.segment, last.begin, max(last.end, span.end))
                continue
        merged.append(span)
    return tuple(merged)
