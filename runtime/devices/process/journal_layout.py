"""Where a journal keeps what: a copy of all that a program's sections change in place.

Both processes work it out from the same plan. Native updates copy what they change
themselves, block by block; the rest is copied before the section begins.

Next: `runtime.devices.process.journal`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.devices.cpu.update import can_save, saving
from runtime.graph.plan import (
    ALIGNMENT,
    Address,
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

SEGMENT = "journal"  # of the plan that a worker runs

# Words of a section's header: numbers of launches, and how many bytes of each tensor
# the rows have saved that do so by themselves.
SAVED, DONE, SAVED_WITHIN = 0, 1, 2
_WORD = 8  # bytes
HEADER_BYTES = 3 * _WORD

Copies = tuple[tuple[Span, int], ...]  # spans, and where their copies are
Numbers = NDArray[np.int64]


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
        kept: What is saved before it begins.
        within: What each of its rows saves that do so by themselves, in their order;
            of one row all spans have the same length.
        rows: Rows of each table, where the copies of their numbers and of them are.
    """

    header: int
    kept: Copies
    within: tuple[Copies, ...]
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

        def copies(kept: Iterable[Span]) -> Copies:
            return tuple((span, take(span)) for span in kept)

        changed, rows = _changed(plan, private), _changed_rows(plan)
        for section in (*changed, *(s for s in rows if s not in changed)):
            header, offset = offset, offset + ALIGNMENT
            entries[section] = Entry(
                header,
                copies(changed.get(section, ())),
                tuple(
                    copies(row.writes)
                    for row in _by_itself(plan.sections.get(section, ()))
                ),
                tuple(
                    (r, take(r.numbers), take(r.table)) for r in rows.get(section, ())
                ),
            )
        return cls(entries, offset)

    def instrument(self, plan: Plan) -> Plan:
        """The plan for the worker, with rows that save what they change."""
        sections = dict(plan.sections)
        for section, entry in self.entries.items():
            saved = Address(SEGMENT, entry.header + _WORD * SAVED_WITHIN)
            by_itself = _by_itself(plan.sections.get(section, ()))
            before = 0
            instead: dict[int, NativeRow] = {}
            for row, kept in zip(by_itself, entry.within, strict=True):
                copies = [Address(SEGMENT, offset) for _, offset in kept]
                instead[id(row)] = saving(row, copies, saved, before)
                before += length(kept)
            rows = plan.sections.get(section, ())
            sections[section] = tuple(instead.get(id(row), row) for row in rows)
        segments = {**plan.segments, SEGMENT: self.nbytes}
        return replace(plan, segments=segments, sections=sections)


def length(copies: Copies) -> int:
    """Bytes of each of a row's spans."""
    span, _ = copies[0]
    return span.end - span.begin


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
        by_itself = {id(row) for row in _by_itself(rows)}
        written = [
            span
            for row in rows
            if id(row) not in by_itself and not _some_rows(row)
            for span in row.writes
        ]
        if written or by_itself:
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


def _by_itself(rows: Sequence[Row]) -> list[NativeRow]:
    """The rows that save what they change, since no other one changes it, too."""
    written = [(span, id(row)) for row in rows for span in row.writes]
    shared: set[int] = set()
    widest: tuple[Span, int] | None = None
    for place in sorted(written, key=lambda p: (p[0].segment, p[0].begin)):
        if widest is not None and widest[0].overlaps(place[0]):
            shared |= {widest[1], place[1]}
        if widest is None or (place[0].segment, place[0].end) > (
            widest[0].segment,
            widest[0].end,
        ):
            widest = place
    return [row for row in rows if can_save(row) and id(row) not in shared]


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
