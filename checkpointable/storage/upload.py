"""Uploads a file to a remote file system so that it becomes visible only when it is complete.

Object stores make an object visible when its upload is completed. A file of fsspec completes its upload when it is
closed, which a ``with`` does even after an exception, and the garbage collector too. So files are opened without
``autocommit`` here, completed explicitly, and marked as closed when the upload is aborted. On other file systems, the
file is written under a temporary name and then renamed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import io
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from fsspec.spec import AbstractFileSystem

from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage.paths import filesystem, parent, reaching
from checkpointable.storage.ranges import RangeReader
from checkpointable.storage.store import Content
from checkpointable.storage.writer import run_in_thread

T = TypeVar("T")

_BLOCK = 1 << 23
_PARTS_ETAG = re.compile(r"[0-9a-f]{32}-[0-9]+")


def send(content: Content, url: str, *, exclusive: bool, part_size_bytes: int, timeout_seconds: float) -> None:
    """Upload a file. After an ``OSError`` it may exist nevertheless.

    Args:
        content: Its bytes.
        url: Its name.
        exclusive: Whether to raise ``FileExistsError`` if the name is taken by then, where the file system can tell.
        part_size_bytes: Size of each part but the last.
        timeout_seconds: How long each part may take.
    """
    files, path = filesystem(url)
    if not files.async_impl:
        _send_and_rename(content, url)
        return
    with reaching(url):
        file = _open(files, path, exclusive=exclusive, part_size_bytes=part_size_bytes)
    try:
        for piece, ends_part in _parts(content.pieces(), part_size_bytes):
            with reaching(url):
                if ends_part:  # this write sends the part
                    within(timeout_seconds, partial(file.write, piece))
                else:
                    file.write(piece)
        with reaching(url):
            within(timeout_seconds, file.close)  # sends the last part
            within(timeout_seconds, file.commit)
    except BaseException:
        _abort(file, url, timeout_seconds)
        raise


def difference(content: Content, url: str, *, part_size_bytes: int) -> str | None:
    """How a remote file differs from what was uploaded, or ``None``.

    Size and checksum are compared, the checksum being the one that S3 makes of the parts. If there is none, or it
    differs (encryption with own keys changes it), the file is read back and compared.
    """
    files, path = filesystem(url)
    with reaching(url):
        info = files.info(path)
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


def _abort(file: Any, url: str, timeout_seconds: float) -> None:
    """Abort the upload. If that fails too, its parts remain, but no file becomes visible."""
    file.closed = True
    with contextlib.suppress(OSError), reaching(url):
        within(timeout_seconds, file.discard)


def _send_and_rename(content: Content, url: str) -> None:
    temporary = f"{parent(url)}/{TEMPORARY_PREFIX}{secrets.token_hex(8)}.tmp"
    files, temporary_path = filesystem(temporary)
    path = files._strip_protocol(url)
    try:
        with reaching(url):
            files.makedirs(files._parent(path), exist_ok=True)
            file = files.open(temporary_path, "wb")
        with file:
            for piece in content.pieces():
                with reaching(url):
                    file.write(piece)
        with reaching(url):
            files.mv(temporary_path, path)
    except BaseException:
        with contextlib.suppress(OSError), reaching(url):
            files.rm_file(temporary_path)
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


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of a call. It runs on its own thread, which is abandoned with ``TimeoutError`` at the end of the time.

    Uploads need this: aiohttp, and what is built on it, hangs forever if the server stops reading, as its own timeouts
    begin when a request is sent.
    """
    result: Future[T] = Future()
    run_in_thread(call, result, name="checkpointable-upload")
    concurrent.futures.wait([result], seconds)
    if not result.done():
        raise TimeoutError(f"no answer for {seconds:g} s")
    return result.result()
