"""Locks that show which files and directories are being written.

They are locks of the system on the file itself, which end with the process. Windows has no such locks: there a file
beside it is locked by ``filelock``, which every installation of torch brings.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # on Windows

BESIDE = ".lock"  # the end of the name of a file beside the locked one


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[BinaryIO]:
    """Make a file and lock it until the end of the block, even if it is closed before."""
    with contextlib.ExitStack() as stack:
        if fcntl is None:
            stack.enter_context(_locked_beside(path))
        while True:
            file = stack.enter_context(open(path, "x+b"))
            if fcntl is None or _lock(stack, os.dup(file.fileno()), path):
                break
        yield file


@contextlib.contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Make a directory and lock it for the block."""
    with contextlib.ExitStack() as stack:
        if fcntl is None:
            stack.enter_context(_locked_beside(path))
        while True:
            path.mkdir()
            if fcntl is None or _lock(stack, os.open(path, os.O_RDONLY), path):
                break
        yield


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool | None]:
    """Lock what is there for the block, and give whether nobody else has it locked; ``None`` if there are no locks."""
    if fcntl is None:
        with _locked_beside(path, timeout_seconds=0) as is_locked:
            yield is_locked
        return
    mode = os.O_RDONLY if stat.S_ISDIR(path.lstat().st_mode) else os.O_RDWR
    descriptor = os.open(path, mode | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        is_free: bool | None = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_free = False
        except OSError:
            is_free = None
        yield is_free
    finally:
        os.close(descriptor)


def _lock(stack: contextlib.ExitStack, descriptor: int, path: Path) -> bool:
    """Lock what was just made, until the stack ends; false if another process had deleted it before that."""
    stack.callback(os.close, descriptor)
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.path.lexists(path)


@contextlib.contextmanager
def _locked_beside(path: Path, *, timeout_seconds: float = -1) -> Iterator[bool | None]:
    from filelock import FileLock, Timeout

    beside = Path(f"{path}{BESIDE}")
    lock = FileLock(beside, timeout=timeout_seconds)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        yield None
        return
    try:
        yield True
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
