"""How a file becomes durable, and only then visible.

A temporary file in the same directory is written, flushed, synced and verified; then it takes its name, and the
directory is synced. Whatever is killed in between, the name stands for the whole old file or the whole new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from checkpointable._errors import SaveError
from checkpointable.policy.names import TEMPORARY_PREFIX

try:
    import fcntl
except ImportError:  # on Windows
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True

_NAME = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}(?P<host>.+)-(?P<process>\d+)-[0-9a-f]+\.tmp")
_OLD_SECONDS = 24 * 3600
_IN_USE: set[str] = set()  # temporary files of this process, in whatever thread
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EXDEV}


def commit(
    path: Path,
    write: Callable[[BinaryIO], None],
    *,
    problem: Callable[[Path], str | None],
    overwrite: bool,
) -> None:
    """Write a file durably; it appears under its name whole, or not at all.

    Args:
        path: The final name; its directory is made if it is gone.
        write: Fills an empty file that is open for reading and writing.
        problem: What is wrong with the written file, or ``None``; asked before it becomes visible.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        FileExistsError: If the name is taken and ``overwrite`` is false.
        SaveError: If the file does not verify.
        OSError: If the file system refuses.
    """
    _make(path.parent)
    with _temporary(path.parent) as temporary, _locked(temporary) as made:
        with made as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        wrong = problem(temporary)
        if wrong is not None:
            raise SaveError(f"{path} was written, and does not verify: {wrong}. It was not kept; save to another disk.")
        _publish(temporary, path, overwrite=overwrite)
    sync_directory(path.parent)


def point(link: Path, target: Path) -> None:
    """Make ``link`` a relative link to ``target``, in one step. Where links are not to be had, a copy.

    Raises:
        FileExistsError: If ``link`` is the file itself.
        OSError: If the file system refuses.
    """
    if not link.is_symlink() and link.exists() and link.samefile(target):
        raise FileExistsError(errno.EEXIST, "a link would take the place of the file that it is to lead to", str(link))
    with _temporary(link.parent) as temporary:
        try:
            os.symlink(os.path.relpath(target, link.parent), temporary)
        except OSError:
            _copy(target, temporary)
        os.replace(temporary, link)
    sync_directory(link.parent)


def remove(path: Path) -> None:
    """Delete a file, durably. One that is gone already is no error."""
    path.unlink(missing_ok=True)
    if path.parent.exists():
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable, where the system can (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prepare(directory: Path, *, below: bool = False) -> None:
    """Make the directory, show that it can be written, and sweep what dead processes left half-written.

    Args:
        directory: Where checkpoints will be saved.
        below: Whether they will be in its subdirectories, too.

    Raises:
        SaveError: If the directory cannot be used; the message says what to do.
    """
    try:
        _make(directory)
        with _temporary(directory) as temporary:
            temporary.write_bytes(b"probe")
    except (FileExistsError, NotADirectoryError) as error:
        raise SaveError(
            f"cannot save checkpoints in {directory}: a part of that path is a file. Choose another dirpath."
        ) from error
    except OSError as error:
        raise SaveError(
            f"cannot save checkpoints in {directory}: {error.strerror or error}."
            " Choose a dirpath that this process can write, or free space there."
        ) from error
    for leftover in directory.glob(f"{'**/' if below else ''}{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's; it stays theirs
            _sweep(leftover)


def _make(directory: Path) -> None:
    """Make a directory and what is missing above it, each name durable."""
    missing = [place for place in (directory, *directory.parents) if not place.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # which would say that the name of the file is taken
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory)) from error
    for place in missing:
        sync_directory(place.parent)


@contextlib.contextmanager
def _temporary(directory: Path) -> Iterator[Path]:
    name = f"{TEMPORARY_PREFIX}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    path = directory / name
    _IN_USE.add(name)
    try:
        yield path
    finally:
        _IN_USE.discard(name)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(temporary: Path) -> Iterator[BinaryIO]:
    """Make a file that stays locked to the end of this, even when it is closed before: it shows that it is in use."""
    with contextlib.ExitStack() as stack:
        while True:
            file = stack.enter_context(open(temporary, "x+b"))
            if not _HAS_LOCKS:
                break
            lock = os.dup(file.fileno())
            stack.callback(os.close, lock)
            with contextlib.suppress(OSError):  # a file system that knows no locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.lexists(temporary):  # else a sweep took it before it was locked
                break
        yield file


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)  # fails if the name is taken, even by a run that took it a moment ago; the other way
        # below, for file systems without hard links, cannot tell that
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        os.replace(temporary, path)


def _copy(target: Path, temporary: Path) -> None:
    with open(target, "rb") as source, _locked(temporary) as copy:
        while block := source.read(1 << 24):
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())


def _sweep(leftover: Path) -> None:
    """Delete a temporary file that nobody writes any more.

    On this host that is one whose process is dead, and that is not locked: a process of another container has the same
    host name at times, and a number that stands for nobody here. Of other hosts only the age tells.
    """
    name = _NAME.fullmatch(leftover.name)
    if name is None or leftover.name in _IN_USE:
        return
    status = leftover.lstat()
    is_old = time.time() - status.st_mtime > _OLD_SECONDS
    if not is_old and (name["host"] != socket.gethostname() or _is_alive(int(name["process"]))):
        return
    with _try_lock(leftover, status) as is_free:
        if is_free or (is_free is None and is_old):
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _try_lock(leftover: Path, status: os.stat_result) -> Iterator[bool | None]:
    """Whether nobody has a file locked; ``None`` where its file system knows no locks. If so, it is locked in here."""
    if not _HAS_LOCKS or not stat.S_ISREG(status.st_mode):
        yield True
        return
    descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
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


def _is_alive(process: int) -> bool:
    """Whether a process of this host lives. This one does not count: what it writes now is known by name."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return process != os.getpid()
