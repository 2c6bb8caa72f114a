"""Every test counts for one part, and what takes too long is said."""

from __future__ import annotations

from pathlib import Path

from tests.budgets import SECONDS, Spent


def test_a_file_counts_for_its_innermost_folder() -> None:
    spent = Spent()
    spent.add("tests/asyncmod/module/test_fit.py", 1000.0)
    spent.add("tests/asyncmod/io/test_csv_iter.py", 1.0)
    spent.add("tests/test_leaks.py", 2.0)
    first, *others = spent.lines()
    assert first.split()[-4:] == ["tests/asyncmod/module", "over", "its", "budget"]
    assert [line.split()[-1] for line in others] == ["tests", "tests/asyncmod"]


def test_the_parts_make_up_the_whole() -> None:
    assert sum(SECONDS.values()) <= 12 * 60
    root = Path(__file__).parent.parent
    assert all((root / part).is_dir() for part in SECONDS)
