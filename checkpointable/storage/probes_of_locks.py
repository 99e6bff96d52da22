"""Tries out whether a file that is locked is locked for others."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # on Windows, where files have no such locks

_ASK = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "rb"), fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("free")
except BlockingIOError:
    print("locked")
"""
_CHILD_SECONDS = 60


def locks(folder: Path) -> str:
    """Lock a file that is locked, here and in another process."""
    file = folder / "file"
    file.touch()
    if fcntl is None:
        return _locks_of_filelock(file)
    with open(file, "rb") as first, open(file, "rb") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raise OSError("a file was locked twice")
        said = _asked_of_another_process(file)
    if said == "free":
        raise OSError("another process locked a file that is locked")
    others = "another process sees it" if said == "locked" else f"whether another process sees it is not known ({said})"
    return f"a locked file is not locked again; {others}."


def _asked_of_another_process(file: Path) -> str:
    """``"locked"``, ``"free"``, or why it is not known."""
    child = [sys.executable or "python", "-I", "-S", "-c", _ASK, str(file)]
    try:
        asked = subprocess.run(child, capture_output=True, text=True, check=False, timeout=_CHILD_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no process was started, or it did not answer: {error}"
    return asked.stdout.strip() or asked.stderr.strip().rpartition("\n")[2]


def _locks_of_filelock(file: Path) -> str:
    from filelock import FileLock, Timeout  # what torch brings along, for systems without ``flock``

    with FileLock(file, timeout=0):
        with contextlib.suppress(Timeout):
            FileLock(file, timeout=0).acquire()
            raise OSError("a file was locked twice")
    return "a locked file is not locked again."
