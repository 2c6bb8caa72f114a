"""Virtual environments for the project, made with nothing but a bare Python.

`ensure()` makes `.venv` beside the project where it is missing and installs the
project into it where it is stale. A stamp inside says what was installed; it is
taken away before an installation and written after it, so that an interrupted one
is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
STAMP = "asyncmod-installed.json"

Stamp = dict[str, Any]


def ensure(*, dev: bool, project: Path = PROJECT) -> Path:
    """The Python of an environment in which the project is installed.

    Args:
        dev: Whether the `dev` extra is needed too.
        project: The folder that holds pyproject.toml.

    Raises:
        SystemExit: if pip fails; the stamp is then missing, so the next call retries.
    """
    digest = hashlib.sha256((project / "pyproject.toml").read_bytes()).hexdigest()
    stamp = {"project": str(project), "pyproject": digest, "dev": dev}
    return prepare(
        project / ".venv",
        ["--editable", f"{project}[dev]" if dev else str(project)],
        stamp,
        # An environment with the dev extra serves those who do not need it too.
        sufficient=[stamp | {"dev": True}],
    )


def prepare(
    folder: Path,
    requirements: Sequence[str],
    stamp: Stamp,
    *,
    sufficient: Sequence[Stamp] = (),
    python: str = sys.executable,
) -> Path:
    """Make the environment in `folder` hold `requirements`, unless it does already.

    Args:
        folder: Where the environment is or will be.
        requirements: What pip is to install.
        stamp: What identifies this installation.
        sufficient: Stamps of installations that would do as well.
        python: The interpreter to make a new environment with.

    Returns:
        The environment's interpreter.

    Raises:
        SystemExit: if the environment cannot be made or pip fails.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - pip has not looked yet
        sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    folder.parent.mkdir(exist_ok=True)
    inside = interpreter(folder)
    with locked(folder.parent):
        if read_stamp(folder) not in (stamp, *sufficient):
            (folder / STAMP).unlink(missing_ok=True)
            if not has_pip(inside):
                run_or_exit([python, "-m", "venv", "--clear", str(folder)])
            run_or_exit([str(inside), "-m", "pip", "install", "-q", *requirements])
            write_stamp(folder, stamp)
    return inside


def interpreter(folder: Path) -> Path:
    """The interpreter of the virtual environment in `folder`."""
    if os.name == "nt":
        return folder / "Scripts" / "python.exe"
    return folder / "bin" / "python"


def has_pip(python: Path) -> bool:
    """Whether the environment of `python` exists and works."""
    try:
        probe = subprocess.run([python, "-c", "import pip"], capture_output=True)
    except OSError:
        return False
    return probe.returncode == 0


def run_or_exit(command: Sequence[str]) -> None:
    """Run a step of an installation; standard output stays free for what follows."""
    print(" ".join(command), file=sys.stderr, flush=True)
    status = subprocess.run(command, stdout=sys.stderr).returncode
    if status:
        sys.exit(f"exit status {status} from: {' '.join(command)}")


def read_stamp(folder: Path) -> Stamp | None:
    try:
        content: Stamp = json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return None
    return content


def write_stamp(folder: Path, stamp: Stamp) -> None:
    aside = folder / f"{STAMP}.partial"
    aside.write_text(json.dumps(stamp))
    os.replace(aside, folder / STAMP)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work in `folder` (where the system has flock)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
