"""Recorded iterators that are not here yet; `python -m tests.golden.io_coverage`.

A case is covered when its records stand in `io/`, where the tests pick them up.
`io_uncovered.txt` is the list that is to shrink.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def names(file: str) -> list[str]:
    return (HERE / file).read_text().split()


def uncovered() -> list[str]:
    """Names of the cases without records."""
    covered = {path.stem for path in (HERE / "io").glob("*.json")}
    return [name for name in names("io_all.txt") if name not in covered]


if __name__ == "__main__":
    print("\n".join(uncovered()))
