"""Reads files and directories, the same way for a local path and for a URL.

Where the file system of a URL does not answer, ``RemoteError`` is raised. It says nothing about the files there: they
must not be treated as damaged or missing.
"""

from __future__ import annotations

import errno
import io
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import BinaryIO, Literal, TypeVar, cast

from checkpointable.storage.paths import filesystem, is_remote, normalize_path, reaching
from checkpointable.storage.ranges import RangeReader

_AT_A_TIME = 8

T = TypeVar("T")


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading. Of a remote file, little more is fetched than is read.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be opened, or is not a regular file. (Opening a pipe could wait forever.)
    """
    if is_remote(path):
        return cast(BinaryIO, io.BufferedReader(RangeReader(os.fspath(path))))
    return open(path, "rb", opener=_open_without_waiting)


def _open_without_waiting(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # for a directory, Python raises the error
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def kind(path: str) -> Literal["file", "directory"] | None:
    """What is at a path, ``None`` if nothing is. Links are followed; a dangling one counts as a file.

    Raises:
        OSError: If the path cannot be examined.
    """
    try:
        if is_remote(path):
            files, place = filesystem(path)
            with reaching(path):
                return "directory" if files.info(place)["type"] == "directory" else "file"
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return "directory" if os.path.isdir(path) else "file"


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether something is at a local path. Links are followed; a circle of links leads to nothing.

    Raises:
        OSError: If the path cannot be examined, for example because a directory is locked for a while.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False
    return True


def freed_bytes(path: str) -> int:
    """How many bytes are freed when a local file is deleted; 0 if it has another hard link.

    Raises:
        OSError: If the file cannot be examined.
    """
    status = os.stat(path)
    if status.st_nlink > 1:
        return 0
    return getattr(status, "st_blocks", 0) * 512 or status.st_size


def is_there(path: str) -> bool:
    """Whether something is at a path. A dangling link counts.

    Raises:
        RemoteError: If a remote file system does not answer.
    """
    return kind(path) is not None if is_remote(path) else os.path.lexists(path)


def is_file(path: str) -> bool:
    """Whether there is a file at a path.

    Raises:
        RemoteError: If a remote file system does not answer.
    """
    return kind(path) == "file" if is_remote(path) else os.path.isfile(path)


def modified(path: str) -> float:
    """When a file was last changed, in seconds since the epoch of Unix time; infinite if unknown.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If the file cannot be examined.
    """
    if not is_remote(path):
        return os.stat(path).st_mtime
    files, place = filesystem(path)
    with reaching(path):
        try:
            when = files.modified(place)
        except NotImplementedError:
            return math.inf
    return when.timestamp() if isinstance(when, datetime) else math.inf


def listed(url: str, *, below: bool) -> list[str]:
    """The files in a remote directory, as sorted URLs; none if there is no such directory.

    Args:
        url: The directory.
        below: Whether to list its subdirectories as well.

    Raises:
        OSError: If it cannot be listed.
    """
    files, place = filesystem(url)
    with reaching(url):
        try:
            found = files.find(place, detail=True) if below else {it["name"]: it for it in files.ls(place, detail=True)}
        except FileNotFoundError:
            return []
    root = place.rstrip("/")
    names = sorted(name for name, info in found.items() if info["type"] == "file" and name.startswith(f"{root}/"))
    return [normalize_path(url) + name[len(root) :] for name in names]


def read_bytes(url: str) -> bytes:
    """All bytes of a remote file, its parts fetched concurrently.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
    """
    files, place = filesystem(url)
    with reaching(url):
        return bytes(files.cat_file(place))


def for_each(directory: str, paths: Iterable[str], read: Callable[[str], T]) -> Iterator[T]:
    """The results of ``read(path)`` for files of one directory, in order. Remote files are read several at a time."""
    if not is_remote(directory):
        yield from map(read, paths)
        return
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        yield from pool.map(read, paths)
