"""Run a Python file with the project installed: `python3 tools/run.py FILE ARGS...`.

Needs nothing but Python 3.11 or newer; makes `.venv` on first use.
"""

from __future__ import annotations

import os
import subprocess
import sys

from environment import ensure


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    python = str(ensure(dev=False))
    command = [python, *sys.argv[1:]]
    if os.name == "nt":
        return subprocess.run(command).returncode
    # Become the program, so that signals reach it.
    os.execv(python, command)


if __name__ == "__main__":
    sys.exit(main())
