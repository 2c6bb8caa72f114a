"""Compiled kernels on disk.

Numba's own cache notices changes of the file that defines a function, not of the
files whose helpers it calls; this one keys on all sources, the processor and the
compilers' versions, and loading from it needs LLVM alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


class ObjectCache:
    """Folder of object files, each preceded by its checksum.

    Args:
        folder: an existing folder, or None to remember nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self, name: str) -> bytes | None:
        """The object stored under a name; None if absent or damaged."""
        if self.folder is None:
            return None
        try:
            data = (self.folder / name).read_bytes()
        except OSError:
            return None
        checksum, code = data[:32], data[32:]
        return code if hashlib.sha256(code).digest() == checksum else None

    def write(self, name: str, code: bytes) -> None:
        """Store an object; other processes see all of it or nothing."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            handle, temporary = tempfile.mkstemp(dir=self.folder)
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(temporary, self.folder / name)


def open_cache() -> ObjectCache:
    """The cache of this user, or one in the temporary folder, or none.

    `ASYNCMOD_CACHE_DIR` names another folder. Falling back is said in one warning.
    """
    wanted = _user_folder()
    if _writable(wanted):
        return ObjectCache(wanted)
    spare = Path(tempfile.gettempdir()) / f"asyncmod-{_user()}"
    if _writable(spare):
        logger().warning(
            "kernel cache folder is not writable; using a temporary one",
            folder=str(wanted),
            used=str(spare),
            advice="set ASYNCMOD_CACHE_DIR to a writable folder",
        )
        return ObjectCache(spare)
    logger().warning(
        "no writable kernel cache folder; kernels are compiled in every process",
        folder=str(wanted),
        advice="set ASYNCMOD_CACHE_DIR to a writable folder",
    )
    return ObjectCache(None)


def logger() -> Any:
    """Where to say what is wrong with kernels or their cache."""
    # Imported at the first line logged: it takes longer than all of asyncmod.
    import structlog

    return structlog.get_logger("asyncmod")


def _user_folder() -> Path:
    named = os.environ.get("ASYNCMOD_CACHE_DIR")
    if named:
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError:  # no home: the warning then names this folder
        home = Path("/nonexistent")
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "asyncmod" / "kernels"


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _writable(folder: Path) -> bool:
    """Make the folder; whether it is ours alone to write to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
        if hasattr(os, "getuid") and (state.st_uid != _user() or state.st_mode & 0o022):
            return False  # code is run from here: nobody else may put any
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
