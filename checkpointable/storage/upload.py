"""Uploads a file to a remote file system so that it becomes visible only when it is complete.

Object stores make an object visible when its upload is completed. A file of fsspec completes its upload when it is
closed, which a ``with`` does even after an exception, and the garbage collector too. So files are opened without
``autocommit`` here, completed explicitly, and marked as closed when the upload is aborted. On other file systems, the
file is written under a temporary name and then renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage.paths import filesystem, parent, reaching
from checkpointable.storage.ranges import RangeReader
from checkpointable.storage.store import Content
from checkpointable.storage.waiting import ask

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

_BLOCK = 1 << 23
_UNABORTED: list[tuple[Any, str, int]] = []  # files whose abort has failed, their URLs, and the process
_PARTS_ETAG = re.compile(r"[0-9a-f]{32}-[0-9]+")


def send(
    content: Content,
    url: str,
    *,
    exclusive: bool,
    part_size_bytes: int,
    timeout_seconds: float,
    answered: Callable[[], None] = lambda: None,
) -> None:
    """Upload a file. After an ``OSError`` it may exist nevertheless.

    Args:
        content: Its bytes.
        url: Its name.
        exclusive: Whether to raise ``FileExistsError`` if the name is taken by then, where the file system can tell.
        part_size_bytes: Size of each part but the last.
        timeout_seconds: How long each part may take.
        answered: Called when the file system has answered.
    """
    files, path = filesystem(url)
    if not files.async_impl:
        _send_and_rename(content, url, timeout_seconds, answered)
        return
    abort_again()
    file = ask(url, lambda: _open(files, path, exclusive=exclusive, part_size_bytes=part_size_bytes))
    try:
        for piece, ends_part in _parts(content.pieces(), part_size_bytes):
            if ends_part:  # this write sends the part
                ask(url, partial(file.write, piece), seconds=timeout_seconds)
                answered()
            else:
                with reaching(url):
                    file.write(piece)
        ask(url, file.close, seconds=timeout_seconds)  # sends the last part
        answered()
        ask(url, file.commit, seconds=timeout_seconds)
        answered()
    except BaseException:
        _abort(file, url)
        raise


def difference(content: Content, url: str, *, part_size_bytes: int) -> str | None:
    """How a remote file differs from what was uploaded, or ``None``.

    Size and checksum are compared, the checksum being the one that S3 makes of the parts. If there is none, or it
    differs (encryption with own keys changes it), the file is read back and compared.
    """
    files, path = filesystem(url)
    info = ask(url, lambda: files.info(path))
    if info["size"] != content.size:
        return f"{content.size:,} bytes were sent, {info['size']:,} are there"
    etag = str(info.get("ETag", "")).strip('"')
    if _PARTS_ETAG.fullmatch(etag) and etag == _parts_etag(content, part_size_bytes):
        return None
    return None if _is_same(content, url) else "its bytes are not those that were sent"


def _open(files: AbstractFileSystem, path: str, *, exclusive: bool, part_size_bytes: int) -> Any:
    """Open a file for writing. (``files.open`` could add it to a transaction, which would complete it twice.)"""
    options = {"block_size": part_size_bytes, "autocommit": False}
    if exclusive:
        with contextlib.suppress(ValueError, NotImplementedError):  # without exclusive uploads
            return files._open(path, "xb", **options)
    return files._open(path, "wb", **options)


def _abort(file: Any, url: str) -> None:
    """Abort the upload. If that fails too, its parts remain, and no file becomes visible; it is tried again later."""
    file.closed = True
    try:
        ask(url, file.discard)
    except OSError:
        _UNABORTED.append((file, url, os.getpid()))


def abort_again() -> None:
    """Abort the uploads of this process whose abort has failed."""
    left = [it for it in _UNABORTED if it[2] == os.getpid()]
    _UNABORTED.clear()
    for file, url, _ in left:
        _abort(file, url)


def _send_and_rename(content: Content, url: str, timeout_seconds: float, answered: Callable[[], None]) -> None:
    temporary = f"{parent(url)}/{TEMPORARY_PREFIX}{secrets.token_hex(8)}.tmp"
    files, temporary_path = filesystem(temporary)
    path = files._strip_protocol(url)
    wait = partial(ask, url, seconds=timeout_seconds)
    try:
        wait(lambda: files.makedirs(files._parent(path), exist_ok=True))
        file = wait(lambda: files.open(temporary_path, "wb"))
        with file:
            for piece in content.pieces():
                wait(partial(file.write, piece))
                answered()
        wait(lambda: files.mv(temporary_path, path))
        answered()
    except BaseException:
        with contextlib.suppress(OSError):
            ask(url, lambda: files.rm_file(temporary_path))
        raise


def _parts(pieces: Iterable[memoryview], part_size: int) -> Iterator[tuple[memoryview, bool]]:
    """The pieces, cut where parts end, each with whether it ends a part. fsspec sends a part when it is complete."""
    room = part_size
    for piece in pieces:
        while len(piece):
            here = piece[:room]
            yield here, len(here) == room
            piece, room = piece[len(here) :], room - len(here) or part_size


def _parts_etag(content: Content, part_size: int) -> str:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html"""
    digests, digest, ends_part = [], hashlib.md5(usedforsecurity=False), True
    for piece, ends_part in _parts(content.pieces(), part_size):
        digest.update(piece)
        if ends_part:
            digests.append(digest.digest())
            digest = hashlib.md5(usedforsecurity=False)
    if not ends_part:
        digests.append(digest.digest())
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def _is_same(content: Content, url: str) -> bool:
    with io.BufferedReader(RangeReader(url), _BLOCK) as file:
        return all(file.read(len(piece)) == piece for piece in content.pieces()) and not file.read(1)
