"""Makes a file durable before it becomes visible.

A temporary file in the same directory is written, flushed, synced and verified. Then it is renamed, and the directory
is synced. If the process is killed at any point, the name leads to the intact old file or to the intact new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from checkpointable._errors import CheckpointableWarning, SaveError
from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage import locks

_NAME = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}(?P<host>.+)-(?P<process>\d+)-[0-9a-f]+\.tmp")
_OLD_SECONDS = 24 * 3600
_IN_USE: set[str] = set()  # temporary files of this process, from all its threads
CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EIO, errno.EACCES, errno.EPERM}
_REACHED: set[tuple[int, int]] = set()  # directories that a power cut cannot take from their parents, by inode
_UNSYNCED: set[int] = set()  # devices on which no directory can be synced, as was seen at the start


class NotSyncedError(OSError):
    """A file has its name, and the system has failed to make that name durable."""


_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EXDEV}


def commit(
    path: Path,
    write: Callable[[BinaryIO], None],
    *,
    problem: Callable[[Path], str | None],
    overwrite: bool,
) -> None:
    """Write a file durably. It appears under its name intact, or not at all.

    Args:
        path: The final name. Its directory is made if it is missing.
        write: Fills an empty file that is open for reading and writing.
        problem: Returns what is wrong with the written file, or ``None``. Called before the file becomes visible.
        overwrite: Whether to replace a file of that name.

    Raises:
        FileExistsError: If the name is taken and ``overwrite`` is false.
        SaveError: If the written file is not intact.
        OSError: If the file system refuses.
    """
    make(path.parent)
    with temporary_in(path.parent) as temporary, locks.locked_file(temporary) as made:
        with made as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        wrong = problem(temporary)
        if wrong is not None:
            raise SaveError(f"{path} is damaged after it was written: {wrong}. It was not kept. Save to another disk.")
        _publish(temporary, path, overwrite=overwrite)
    sync_name(path)


def sync_name(path: Path) -> None:
    """Make the name of a file durable that has just got it; ``NotSyncedError`` if that fails."""
    try:
        sync_directory(path.parent)
    except OSError as error:
        raise NotSyncedError(error.errno, error.strerror, str(path.parent)) from error


def point(link: Path, target: Path) -> None:
    """Make ``link`` a relative link to ``target``, in one step; a copy where the file system has no links."""
    if not link.is_symlink() and link.exists() and link.samefile(target):
        raise FileExistsError(errno.EEXIST, "a link would replace the file that it leads to", str(link))
    with temporary_in(link.parent) as temporary:
        try:
            os.symlink(os.path.relpath(target, link.parent), temporary)
        except OSError:
            _copy(target, temporary)
        os.replace(temporary, link)
    sync_directory(link.parent)


def remove(path: Path) -> None:
    """Delete a file durably. If it is missing, do nothing."""
    path.unlink(missing_ok=True)
    if path.parent.exists():
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. Where ``prepare`` has seen that this is not possible, it does nothing."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC or os.stat(directory).st_dev not in _UNSYNCED:
            raise


def prepare(directory: Path, *, below: bool = False) -> None:
    """Make the directory, check that it can be written, and delete temporary files that dead processes left.

    ``below`` says that files will be in its subdirectories, too. ``SaveError`` says why it cannot be used.
    """
    try:
        _find_out_whether_names_sync(next(place for place in (directory, *directory.parents) if place.exists()))
        make(directory)
        with temporary_in(directory) as temporary:
            temporary.write_bytes(b"probe")
        for folder, *_ in os.walk(directory) if below else ():
            sync_directory(Path(folder))  # a process may have been killed before it did
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
        with contextlib.suppress(OSError):  # another user's file stays
            is_abandoned(leftover, delete=True)


def _find_out_whether_names_sync(directory: Path) -> None:
    """As on SMB, older CIFS, and Windows' drives in WSL, which refuse it."""
    try:
        sync_directory(directory)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
        _UNSYNCED.add(os.stat(directory).st_dev)
        warnings.warn(
            f"the file system of {directory} cannot make the names of files durable ({error.strerror}). Everything is"
            " saved all the same; a power cut may lose the newest files. If that matters, choose another dirpath.",
            CheckpointableWarning,
            stacklevel=2,
        )


def _sync_parents(directory: Path) -> None:
    """Make the directory itself durable, and those above it, whoever has made them: a logger makes its own."""
    device = os.stat(directory).st_dev
    for place in directory.resolve().parents:
        with contextlib.suppress(OSError):  # one that this user may not read is older than this run
            if os.stat(place).st_dev != device:
                break
            sync_directory(place)


def make(directory: Path) -> None:
    """Make a directory and its missing parents durably. What others have made of them is synced at the first use."""
    missing = [place for place in (directory, *directory.parents) if not place.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # FileExistsError would mean that the file's name is taken
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory)) from error
    for place in missing:
        sync_directory(place.parent)
    status = os.stat(directory)
    if (status.st_dev, status.st_ino) not in _REACHED:
        _sync_parents(directory)
        _REACHED.add((status.st_dev, status.st_ino))


@contextlib.contextmanager
def temporary_in(directory: Path) -> Iterator[Path]:
    """A name in a directory that no other save has. What has that name at the end of the block is deleted."""
    name = f"{TEMPORARY_PREFIX}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    path = directory / name
    _IN_USE.add(name)
    try:
        yield path
    finally:
        _IN_USE.discard(name)
        with contextlib.suppress(OSError):
            _delete(path)


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        # unlike the check below, which is for file systems without hard links, this cannot miss a name just taken
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        os.replace(temporary, path)


def _copy(target: Path, temporary: Path) -> None:
    with open(target, "rb") as source, locks.locked_file(temporary) as copy:
        shutil.copyfileobj(source, copy, 1 << 24)
        copy.flush()
        os.fsync(copy.fileno())


def is_abandoned(leftover: Path, *, delete: bool = False) -> bool:
    """Whether no process is writing a temporary file any more; ``delete`` it then.

    Where locks work, the lock decides of a file of this host: the number of its process may live again, or be one of
    another container with the same host name. A file of another host is abandoned by age.
    """
    name = _NAME.fullmatch(leftover.name.removesuffix(locks.BESIDE))
    if name is None or leftover.name in _IN_USE:
        return False
    status = leftover.lstat()
    is_old = time.time() - status.st_mtime > _OLD_SECONDS
    is_of_this_host = name["host"] == socket.gethostname()
    is_beside = leftover.name.endswith(locks.BESIDE)
    if is_beside and os.path.lexists(os.fspath(leftover).removesuffix(locks.BESIDE)):
        return False  # it goes with the file that it is the lock of
    with contextlib.ExitStack() as held:
        if is_beside or stat.S_ISLNK(status.st_mode):  # there are no locks on these
            is_dead = is_old or (is_of_this_host and not _is_alive(int(name["process"])))
        else:
            is_free = held.enter_context(locks.try_lock(leftover))
            is_dead = is_old if is_free is None else is_free and (is_old or is_of_this_host)
        if is_dead and delete:
            _delete(leftover)
    return is_dead


def _delete(path: Path) -> None:
    """Delete a file, or a directory with all that is in it. If it is missing, do nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Whether another process of this host may be alive. The files that this one writes are known by name."""
    if os.name == "nt":
        return process != os.getpid()  # there, the question would be a signal
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return process != os.getpid()
