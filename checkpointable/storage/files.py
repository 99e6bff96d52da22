"""What the readers ask of a path, answered alike for a local path and for a URL.

Local paths are asked as ever, by ``os``. A URL's file system raises ``RemoteError`` where it does not answer: that says
nothing about the files there, so nobody may take them for damaged or gone.
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
    """A file, open for reading: a remote one by ranges, so that little more is fetched than is read.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be opened, or is no regular file: a pipe would be waited for.
    """
    if is_remote(path):
        return cast(BinaryIO, io.BufferedReader(RangeReader(os.fspath(path))))
    return open(path, "rb", opener=_open_without_waiting)


def _open_without_waiting(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a directory Python says so itself
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def kind(path: str) -> Literal["file", "directory"] | None:
    """What lies at a path, ``None`` if nothing does. Of a link: what it leads to; one that leads nowhere is a file.

    Raises:
        OSError: If that cannot be told.
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
    """Whether a local path leads to something. Links in a circle lead nowhere.

    Raises:
        OSError: If that cannot be told, as where a directory is locked for a while.
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
    """How much room there will be when a local file is deleted; none where it has another name, too.

    Raises:
        OSError: If that cannot be told.
    """
    status = os.stat(path)
    if status.st_nlink > 1:
        return 0
    return getattr(status, "st_blocks", 0) * 512 or status.st_size


def is_there(path: str) -> bool:
    """Whether there is something at a path, be it a link that leads nowhere.

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
    """When a file was last changed, in seconds since the epoch of Unix time; infinite where that is not known.

    Raises:
        FileNotFoundError: If it is gone.
        OSError: If that cannot be told.
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
    """The files in a remote directory, as URLs in a fixed order; none if there is no such directory.

    Args:
        url: The directory.
        below: Whether to list those in its subdirectories, too.

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


def read_whole(url: str) -> bytes:
    """The bytes of a remote file, its parts fetched at the same time.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
    """
    files, place = filesystem(url)
    with reaching(url):
        return bytes(files.cat_file(place))


def for_each(place: str, paths: Iterable[str], ask: Callable[[str], T]) -> Iterator[T]:
    """What comes of asking each file of a directory, in order; in a remote one several at a time."""
    if not is_remote(place):
        yield from map(ask, paths)
        return
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        yield from pool.map(ask, paths)
