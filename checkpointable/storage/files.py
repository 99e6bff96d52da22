"""Reads files and directories, the same way for a local path and for a URL.

A file that is read and missing raises ``FileNotFoundError``, one that cannot be examined another ``OSError``. Where the
file system of a URL does not answer, this is ``RemoteError``. It says nothing about the files there: they must not be
treated as damaged or missing.
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

from checkpointable._errors import RemoteError
from checkpointable.storage.paths import filesystem, is_remote, normalize_path, reaching
from checkpointable.storage.ranges import RangeReader
from checkpointable.storage.waiting import ask

_AT_A_TIME = 32
_LIST_SECONDS = 300.0  # a thousand names a request
_LEADS_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}

T = TypeVar("T")


def open_file(path: str | os.PathLike[str], *, size: int | None = None) -> BinaryIO:
    """Open a regular file for reading. Of a remote file, little more is fetched than is read.

    ``size`` is that of a remote file, if it is known: then it is not asked for.
    """
    if is_remote(path):
        return cast(BinaryIO, io.BufferedReader(RangeReader(os.fspath(path), size)))
    return open(path, "rb", opener=_open_without_waiting)


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file, but no pipe, which could wait forever."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # for a directory, Python raises the error
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def kind(path: str) -> Literal["file", "directory"] | None:
    """What is at a path, ``None`` if nothing is. Links are followed; a dangling one counts as a file."""
    try:
        if is_remote(path):
            files, place = filesystem(path)
            return "directory" if ask(path, lambda: files.info(place))["type"] == "directory" else "file"
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return "directory" if os.path.isdir(path) else "file"


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether something is at a local path. Links are followed; a circle of links leads to nothing."""
    try:
        os.stat(path)
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            raise  # for example, a directory is locked for a while
        return False
    return True


def freed_bytes(path: str) -> int:
    """How many bytes are freed when a local file or directory is deleted; 0 for a file with another hard link."""
    if os.path.isdir(path) and not os.path.islink(path):
        return sum(freed_bytes(entry.path) for entry in os.scandir(path))
    status = os.stat(path)
    if status.st_nlink > 1:
        return 0
    return getattr(status, "st_blocks", 0) * 512 or status.st_size


def is_there(path: str) -> bool:
    """Whether something is at a path. A dangling link counts."""
    return kind(path) is not None if is_remote(path) else os.path.lexists(path)


def is_file(path: str) -> bool:
    """Whether there is a file at a path."""
    return kind(path) == "file" if is_remote(path) else os.path.isfile(path)


def modified(path: str) -> float:
    """When a file was last changed, in seconds since the epoch of Unix time; infinite if unknown."""
    if not is_remote(path):
        return os.stat(path).st_mtime
    files, place = filesystem(path)
    try:
        when = ask(path, lambda: files.modified(place))
    except RemoteError as error:
        if isinstance(error.__cause__, NotImplementedError):
            return math.inf
        raise
    return when.timestamp() if isinstance(when, datetime) else math.inf


def listed(url: str, *, below: bool, seconds: float | None = _LIST_SECONDS) -> list[str]:
    """The files in a remote directory, or also ``below`` it, as sorted URLs; none if there is no such directory.

    ``seconds`` is how long that may take, as for ``ask``.
    """
    return list(sizes(url, below=below, seconds=seconds))


def sizes(url: str, *, below: bool, seconds: float | None = _LIST_SECONDS) -> dict[str, int | None]:
    """The same with their sizes in bytes, from one listing; ``None`` where the file system does not tell it."""
    files, place = filesystem(url)
    try:
        if below:
            found = ask(url, lambda: files.find(place, detail=True), seconds=seconds)
        else:
            entries = ask(url, lambda: files.ls(place, detail=True), seconds=seconds)
            found = {entry["name"]: entry for entry in entries}
    except FileNotFoundError:
        return {}
    root = place.rstrip("/")
    names = sorted(name for name, info in found.items() if info["type"] == "file" and name.startswith(f"{root}/"))
    return {normalize_path(url) + name[len(root) :]: found[name].get("size") for name in names}


def read_bytes(url: str) -> bytes:
    """All bytes of a remote file, its parts fetched concurrently."""
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
