"""The project's virtual environment, made with nothing but a bare Python.

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
import venv
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def ensure(*, dev: bool, project: Path = PROJECT) -> Path:
    """The Python of an environment in which the project is installed.

    Args:
        dev: Whether the `dev` extra is needed too.
        project: The folder that holds pyproject.toml.

    Raises:
        SystemExit: if pip fails; the stamp is then missing, so the next call retries.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - this file runs before pip could refuse
        sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    folder = project / ".venv"
    python = python_of(folder)
    stamp = folder / "asyncmod-installed.json"
    with locked(project):
        if not is_current(stamp, project, dev):
            if not has_pip(python):
                venv.create(folder, with_pip=True, clear=True)
            stamp.unlink(missing_ok=True)
            target = f"{project}[dev]" if dev else str(project)
            pip_install(python, "--editable", target)
            write_atomically(stamp, json.dumps(stamp_content(project, dev)))
    return python


def python_of(folder: Path) -> Path:
    """The interpreter of the virtual environment in `folder`."""
    if os.name == "nt":
        return folder / "Scripts" / "python.exe"
    return folder / "bin" / "python"


def pip_install(python: Path, *requirements: str) -> None:
    """Install into the environment of `python`, quietly.

    Raises:
        SystemExit: if pip fails.
    """
    print(f"installing {' '.join(requirements)}", file=sys.stderr, flush=True)
    command = [str(python), "-m", "pip", "install", "--quiet", *requirements]
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    # Standard output belongs to what is run afterwards.
    result = subprocess.run(command, env=environment, stdout=sys.stderr)
    if result.returncode:
        sys.exit(f"pip failed with exit status {result.returncode}; see above")


def has_pip(python: Path) -> bool:
    """Whether the environment of `python` exists and works."""
    try:
        probe = subprocess.run(
            [str(python), "-c", "import pip, sys; assert sys.version_info >= (3, 11)"],
            capture_output=True,
        )
    except OSError:
        return False
    return probe.returncode == 0


def is_current(stamp: Path, project: Path, dev: bool) -> bool:
    """Whether what the stamp says was installed is what is needed now."""
    try:
        content = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return False
    # An environment with the dev extra serves those who do not need it too.
    return content in (stamp_content(project, dev), stamp_content(project, True))


def stamp_content(project: Path, dev: bool) -> dict[str, object]:
    pyproject = (project / "pyproject.toml").read_bytes()
    digest = hashlib.sha256(pyproject).hexdigest()
    return {"pyproject": digest, "project": str(project), "dev": dev}


def write_atomically(path: Path, text: str) -> None:
    aside = path.with_suffix(".partial")
    aside.write_text(text)
    os.replace(aside, path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work on `folder` (where the system has flock)."""
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
