"""The results as a table: the best of each library, ratio to the best peer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

OURS = "asyncmod"
Case = tuple[str, str, int]


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """Milliseconds per step by library, minimum over variants and rounds.

    Args:
        results: Measurements as `measurement.report` prints them.
    """
    best: dict[Case, dict[str, float]] = {}
    for result in results:
        case = (result["mode"], result["workload"], result["threads"])
        row = best.setdefault(case, {})
        library = result["library"]
        row[library] = min(result["ms_min"], row.get(library, float("inf")))
    libraries = sorted({name for row in best.values() for name in row})
    lines = [["mode", "workload", "threads", *libraries, "ratio to best peer"]]
    for case, row in best.items():
        times = [f"{row[name]:.4g}" if name in row else "-" for name in libraries]
        lines.append([*map(str, case), *times, ratio(row)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def ratio(row: Mapping[str, float]) -> str:
    peers = [time for name, time in row.items() if name != OURS]
    if OURS not in row or not peers:
        return "-"
    return f"{row[OURS] / min(peers):.2f}"
