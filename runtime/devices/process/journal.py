"""What a section is about to overwrite, kept until it is certain that nobody needs it.

A worker may die at any instant. Before it runs a section that changes memory in place
it saves that memory here, and counts; after it, it counts again. Native updates save
block after block, each just before they change it, and count the bytes. The journal
lies in shared memory, so that its parent can tell what had happened, put back what was
there before, and run the section once more as if it had never begun. A dead process has
finished all its stores up to the instruction that it died at and none after it, which
is why plain words suffice.

Of a table of which a lazy update changes some rows, these rows are saved: their numbers
lie there before the section begins. Of a row-sparse array to which a section adds, the
rows are saved that it has.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from runtime.devices.process.journal_layout import (
    DONE,
    HEADER_BYTES,
    SAVED,
    SAVED_WITHIN,
    Entry,
    Layout,
    Numbers,
    Rows,
    length,
)
from runtime.graph.plan import Section, Span

Bytes = NDArray[np.uint8]

_AHEAD_BYTES = 1 << 18  # some 30 microseconds


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
            section: (data[e.header : e.header + HEADER_BYTES].view(np.int64), e)
            for section, e in layout.entries.items()
        }
        self._data = data
        self._segment = segment

    def begin(
        self, section: Section, slot: int, number: int, saved_within: int = 0
    ) -> None:
        """Save what the section will change, and count it.

        Args:
            section, slot, number: Of the launch.
            saved_within: What `save_ahead` has returned.
        """
        if section in self._entries:
            words, _ = self._entries[section]
            self.save(section, slot)
            words[SAVED_WITHIN] = saved_within
            words[SAVED] = number

    def save_ahead(
        self, section: Section, slot: int, enough: Callable[[], bool]
    ) -> int:
        """Copy what the section's rows save by themselves, before it is launched.

        Args:
            section, slot: What is to be launched.
            enough: Asked now and then whether to leave the rest to the rows.

        Returns:
            How many bytes of each tensor are safe, one row after the other.
        """
        if section not in self._entries:
            return 0
        saved = 0
        for copies in self._entries[section][1].within:
            size = length(copies)
            for begin in range(0, size, _AHEAD_BYTES):
                if enough():
                    return saved
                end = min(begin + _AHEAD_BYTES, size)
                for span, offset in copies:
                    place = self._place(span, slot)
                    self._data[offset + begin : offset + end] = place[begin:end]
                saved += end - begin
        return saved

    def save(self, section: Section, slot: int) -> None:
        """Copy what the section will change, but for what it saves itself."""
        _, entry = self._entries[section]
        for span, offset in entry.kept:
            size = span.end - span.begin
            self._data[offset : offset + size] = self._place(span, slot)
        for rows, numbers_at, rows_at in entry.rows:
            numbers = _counted(self._place(rows.numbers, slot))
            _counted(self._data[numbers_at:], len(numbers))[:] = numbers
            table = self._place(rows.table, slot).reshape(-1, rows.row)
            kept = self._rows(rows, rows_at, numbers)
            if rows.changes:
                kept[...] = table[: len(kept)]
            else:  # "clip" spares a copy; the numbers are those of rows that there are
                np.take(table, numbers[1:], axis=0, out=kept, mode="clip")

    def end(self, section: Section, number: int) -> None:
        """The section has run, or nothing of it has taken effect."""
        if section in self._entries:
            self._entries[section][0][DONE] = number

    def has_begun(self, section: Section, number: int) -> bool:
        """Whether a launch is known to have begun."""
        entry = self._entries.get(section)
        return entry is not None and bool(entry[0][SAVED] >= number)

    def recover(self, section: Section, slot: int, number: int) -> bool:
        """After a death: True if the launch was complete, else it never began."""
        if section not in self._entries:
            return False
        words, _ = self._entries[section]
        if words[DONE] >= number or words[SAVED] > number:
            return True
        self.undo(section, slot, number)
        return False

    def undo(self, section: Section, slot: int, number: int) -> None:
        """Put back what was there before this launch; nothing if it did not begin."""
        if section not in self._entries:
            return
        words, entry = self._entries[section]
        if words[SAVED] != number:
            return
        for span, offset in entry.kept:
            self._put_back(span, slot, offset, span.end - span.begin)
        left = int(words[SAVED_WITHIN])
        for copies in entry.within:
            for span, offset in copies:
                self._put_back(span, slot, offset, min(left, span.end - span.begin))
            left = max(left - length(copies), 0)
        for rows, numbers_at, rows_at in entry.rows:
            numbers = _counted(self._data[numbers_at:])
            if rows.changes:
                place = self._place(rows.numbers, slot)
                _counted(place, len(numbers))[:] = numbers
            table = self._place(rows.table, slot).reshape(-1, rows.row)
            table[rows.where(numbers)] = self._rows(rows, rows_at, numbers)

    def _put_back(self, span: Span, slot: int, offset: int, size: int) -> None:
        """The first bytes of a span, from its copy."""
        self._place(span, slot)[:size] = self._data[offset : offset + size]

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
