"""Check and test the project: `python3 tools/test.py [pytest arguments]`.

Runs the linter, the formatter's check, the type checker and the import contracts;
then, if all of them passed, the tests. Needs nothing but Python 3.11 or newer; makes
`.venv` on first use. The last line is pytest's own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from environment import PROJECT, ensure

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy", "--strict", "asyncmod", "runtime"),
    ("lint-imports", "--no-logo"),
)


def main() -> int:
    python = ensure(dev=True)
    failed = [" ".join(check) for check in CHECKS if not passes(python, check)]
    if failed:
        print(f"not tested, since these failed: {'; '.join(failed)}", flush=True)
        return 1
    tests = [str(python), "-m", "pytest", *sys.argv[1:]]
    return subprocess.run(tests, cwd=PROJECT).returncode


def passes(python: Path, check: tuple[str, ...]) -> bool:
    """Run one check, show what it says if it fails, and how long it took."""
    begin = time.monotonic()
    program, *arguments = check
    result = subprocess.run(
        [str(python.parent / program), *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.monotonic() - begin
    if result.returncode:
        print(result.stdout)
    verdict = "FAILED" if result.returncode else "ok"
    print(f"{seconds:6.1f} s  {verdict:6}  {' '.join(check)}", flush=True)
    return result.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
