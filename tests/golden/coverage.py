"""Which golden operator cases are not covered yet: `python -m tests.golden.coverage`.

`ops_all.txt` lists every case recorded from MXNet 1.9.1, with the operators that its
symbol uses. A case is covered when all of them are registered; it then lies in `ops/`,
where the tests run it. `ops_uncovered.txt` is the list that is to shrink.
"""

from __future__ import annotations

from pathlib import Path

import runtime.ops  # noqa: F401  (fills the table)
from runtime.graph import registry

HERE = Path(__file__).parent


def cases() -> dict[str, list[str]]:
    """Every recorded case with its operators."""
    lines = (HERE / "ops_all.txt").read_text().splitlines()
    return {name: operators for name, *operators in map(str.split, lines)}


def uncovered() -> dict[str, list[str]]:
    """The cases that cannot run, each with the operators that are missing."""
    known = set(registry.names())
    missing = {
        name: [op for op in operators if op not in known]
        for name, operators in cases().items()
    }
    return {name: operators for name, operators in missing.items() if operators}


if __name__ == "__main__":
    for name, operators in uncovered().items():
        print(name, *operators)
