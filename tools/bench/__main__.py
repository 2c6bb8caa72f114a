"""Time a step of asyncmod, and of its peers: `python3 tools/bench [options]`.

Prints one JSON line for each measurement, then a table of the minima. Each
measurement is a process of its own; libraries take turns, so that a change of the
machine's speed meets all of them. Makes the environments that it needs (`.venv`, and
below `.peers` those of the peers, which are large).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

from libraries import OURS, PEERS, measure
from table import table
from workloads import WORKLOADS


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument(
        "--workloads", type=names, default=list(WORKLOADS), help="W1_64,W2,..."
    )
    parser.add_argument("--mode", choices=("train", "predict"), default="train")
    parser.add_argument("--threads", type=int, choices=(1, 2), default=1)
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="length of one measurement"
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often all is done")
    parser.add_argument(
        "--peers", type=names, default=[], help=f"of {','.join(PEERS)}; default: none"
    )
    parser.add_argument(
        "--only-peers", action="store_true", help="leave asyncmod itself out"
    )
    arguments = parser.parse_args()
    for given, known in (
        (arguments.workloads, WORKLOADS),
        (arguments.peers, PEERS),
    ):
        if unknown := set(given) - set(known):
            parser.error(f"{', '.join(unknown)}: unknown; known: {', '.join(known)}")
    return arguments


def main() -> int:
    arguments = read_arguments()
    libraries = [PEERS[name] for name in arguments.peers]
    if not arguments.only_peers:
        libraries.insert(0, OURS)
    pythons = {library.name: library.prepare() for library in libraries}
    turns = [
        (workload, library, variant)
        for _ in range(arguments.rounds)
        for workload in arguments.workloads
        for library in libraries
        for variant in library.variants_for(arguments.threads)
    ]
    results = []
    failures = 0
    for workload, library, variant in turns:
        try:
            line = measure(
                library,
                pythons[library.name],
                workload=workload,
                mode=arguments.mode,
                threads=arguments.threads,
                seconds=arguments.seconds,
                variant=variant,
            )
        except RuntimeError as error:
            failures += 1
            print(error, file=sys.stderr, flush=True)
        else:
            print(line, flush=True)
            results.append(json.loads(line))
    if results:
        print(table(results))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
