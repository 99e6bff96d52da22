"""How a file becomes durable, and only then visible.

A temporary file in the same directory is written, flushed, synced and verified; then it takes its name, and the
directory is synced. Whatever is killed in between, the name stands for the whole old file or the whole new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from checkpointable._errors import SaveError

_TEMPORARY = ".checkpointable-"
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
    with _temporary(path.parent) as temporary:
        with open(temporary, "x+b") as file:
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
        OSError: If the file system refuses.
    """
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
    for leftover in directory.glob(f"{'**/' if below else ''}{_TEMPORARY}*"):
        if _is_abandoned(leftover):
            with contextlib.suppress(OSError):  # another user's; it stays theirs
                leftover.unlink(missing_ok=True)


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
    name = f"{_TEMPORARY}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    path = directory / name
    _IN_USE.add(name)
    try:
        yield path
    finally:
        _IN_USE.discard(name)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


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
    with open(target, "rb") as source, open(temporary, "xb") as copy:
        while block := source.read(1 << 24):
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())


def _is_abandoned(leftover: Path) -> bool:
    """Whether the process that wrote a temporary file ran on this host and is dead."""
    host, _, rest = leftover.name.removeprefix(_TEMPORARY).rpartition("-")[0].rpartition("-")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return int(rest) == os.getpid() and leftover.name not in _IN_USE
