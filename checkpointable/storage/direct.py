"""Writes and reads files past the page cache: at the speed of the disk, and verified from the disk itself.

Writes are direct and aligned, as in FastPersist (arXiv 2406.13768). They leave the cached files of others in the page
cache. Small files, and those on file systems that refuse (tmpfs, some network ones), go through the page cache.
"""

from __future__ import annotations

import ctypes
import errno
import io
import itertools
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from checkpointable.storage.store import Content

_BLOCK = 1 << 23
_BUFFER = 1 << 16
UNIT = 1 << 12  # what direct reads and writes are aligned to
_SMALL = 1 << 22
STAYS = 1 << 20  # bytes from which a piece may be written from where it is
_DIRECT = getattr(os, "O_DIRECT", 0)
_REFUSED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_SPARE: list[memoryview] = []  # blocks that no file uses
_MOST_SPARE = 2
_IS_SHORT_OF_MEMORY = threading.Event()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SPARE.clear)  # the memory is the parent's, too


def write(content: Content, file: BinaryIO) -> None:
    """Write the content into an empty file that is open for writing. The caller makes it durable."""
    descriptor = file.fileno()
    is_direct = bool(_DIRECT) and content.size >= _SMALL
    try:
        if is_direct:
            with suppress(OSError):  # a file system without direct writes
                _set_direct(descriptor, _DIRECT)
        blocks = _take_two()
        _one_behind(partial(_write, descriptor), _parts(content, blocks))
        _give_back(blocks)
    finally:
        if is_direct:
            _set_direct(descriptor, 0)
    os.ftruncate(descriptor, content.size)


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading: past the page cache if it is large and the file system allows that."""
    if _DIRECT and os.path.getsize(path) >= _SMALL:
        try:
            return io.BufferedReader(DirectReader(path), _BUFFER)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
    return open(path, "rb", buffering=_BUFFER)


class DirectReader(io.FileIO):
    """A file that is read past the page cache. While a block is used, a thread reads the one after it."""

    # both read by way of ``readinto``: direct reads need aligned memory
    read = io.RawIOBase.read  # type: ignore[assignment]  # FileIO also allows None as the size
    readall = io.RawIOBase.readall

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpointable-disk")
        super().__init__(path, opener=lambda path, flags: os.open(path, flags | _DIRECT))
        self._block, self._next = _take_two()
        self._process = os.getpid()
        self._start = self._length = 0
        self._ahead: tuple[int, Future[int]] | None = None  # where the next block begins, and its length

    def readinto(self, buffer: Any) -> int:
        """Read into the buffer from the current position, and return the number of bytes; 0 at the end."""
        wanted, at = memoryview(buffer).cast("B"), self.tell()
        if not self._start <= at < self._start + self._length:
            self._load(at // UNIT * UNIT)
        here = self._block[at - self._start : self._length][: len(wanted)]
        _copy(here, wanted[: len(here)])
        self.seek(at + len(here))
        return len(here)

    def views(self, at: int, size: int) -> Iterator[memoryview]:
        """The bytes from a position on, without a copy, fewer where the file ends. Each is valid until the next one."""
        while size:
            if not self._start <= at < self._start + self._length:
                self._load(at // UNIT * UNIT)
            here = self._block[at - self._start : self._length][:size]
            if not here:
                return
            yield here
            at, size = at + len(here), size - len(here)

    def close(self) -> None:
        """Wait for the block that is being read, and close the file."""
        if self.closed:
            return
        try:
            self._thread.shutdown()
            if self._process == os.getpid():  # in a child, the memory is the parent's
                _give_back((self._block, self._next))
        finally:
            super().close()

    def _load(self, start: int) -> None:
        self._start, self._length = start, 0
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == start:
            self._length = ahead[1].result()
            self._block, self._next = self._next, self._block
        else:
            if ahead is not None:
                ahead[1].exception()  # wait for it: the next block that is read ahead takes its memory
            self._length = self._read(self._block, start)
        if self._length == len(self._block):
            with suppress(RuntimeError):  # no more threads, as at the end of the interpreter
                after = start + self._length
                self._ahead = after, self._thread.submit(self._read, self._next, after)

    def _read(self, block: memoryview, start: int) -> int:
        return _direct_or_not(self.fileno(), partial(os.preadv, self.fileno(), [block], start))


def _set_direct(descriptor: int, flag: int) -> None:
    import fcntl  # not on Windows, where this is not called

    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~_DIRECT | flag)


def _write(descriptor: int, views: list[memoryview]) -> None:
    while views:
        written = _direct_or_not(descriptor, partial(_write_some, descriptor, views))
        while views and written >= len(views[0]):
            written -= len(views[0])
            views = views[1:]
        if written:
            views = [views[0][written:], *views[1:]]


def _write_some(descriptor: int, views: list[memoryview]) -> int:
    several = len(views) > 1 and hasattr(os, "writev")
    return os.writev(descriptor, views) if several else os.write(descriptor, views[0])


def _direct_or_not(descriptor: int, call: Callable[[], int]) -> int:
    """What a read or write returns, made through the page cache where the file system took the flag and refuses it."""
    try:
        return call()
    except OSError as error:
        if error.errno not in _REFUSED or not _DIRECT:
            raise
        _set_direct(descriptor, 0)
        return call()


def _one_behind(work: Callable[[list[memoryview]], None], parts: Iterable[list[memoryview]]) -> None:
    """Run ``work(part)`` in a thread while the next part is produced, in order.

    The memory of a part may be used again after the following call.
    """
    with ThreadPoolExecutor(1, "checkpointable-disk") as pool:
        submit: Callable[..., Future[None]] = pool.submit
        pending: Future[None] | None = None
        for part in parts:
            if pending is not None:
                pending.result()
            try:
                pending = submit(work, part)
            except RuntimeError:  # no more threads, as at the end of the interpreter
                submit = _at_once
                pending = submit(work, part)
        if pending is not None:
            pending.result()


def _at_once(work: Callable[[list[memoryview]], None], part: list[memoryview]) -> Future[None]:
    work(part)
    done: Future[None] = Future()
    done.set_result(None)
    return done


def _parts(content: Content, blocks: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    """The bytes in parts of 8 MB, each in aligned views, the last one padded.

    A large piece is written from where it is, if its address is aligned as its place in the file is. All else is copied
    into one of the blocks, by turns.
    """
    alternating = itertools.cycle(blocks)
    part, block, length = [], next(alternating), 0
    start = end = 0  # of what is in the block and not yet in the part; ``end`` is aligned as the place in the file is
    for piece in content.pieces():
        stays = len(piece) >= STAYS and not piece.readonly and (_address(piece) - end) % UNIT == 0
        while len(piece):
            if stays and end % UNIT == 0 and len(piece) >= UNIT:
                size = min(len(piece) // UNIT * UNIT, _BLOCK - length)
                part += [block[start:end], piece[:size]] if start < end else [piece[:size]]
                start = end
            else:
                size = min(len(piece), _BLOCK - length, -end % UNIT or UNIT if stays else _BLOCK)
                _copy(piece[:size], block[end : end + size])
                end += size
            piece, length = piece[size:], length + size
            if length == _BLOCK:
                yield [*part, block[start:end]] if start < end else part
                part, block, length = [], next(alternating), 0
                start = end = 0
    if length:
        end += -length % UNIT
        yield [*part, block[start:end]] if start < end else part


def _take_two() -> tuple[memoryview, memoryview]:
    """Two blocks of memory for one file at a time. Those that another file has used have their pages already.

    For a small file, the system takes longer to make new pages than to write them.
    """
    return _take(), _take()


def _take() -> memoryview:
    try:
        return _SPARE.pop()
    except IndexError:
        return memoryview(mmap.mmap(-1, _BLOCK))


def _give_back(blocks: Iterable[memoryview]) -> None:
    """Keep the blocks for the next file, when nothing uses them any more."""
    _SPARE.extend(blocks)
    del _SPARE[0 if _IS_SHORT_OF_MEMORY.is_set() else _MOST_SPARE :]


def keep_no_blocks() -> None:
    """From now on, leave the memory to the training: this process has too little."""
    _IS_SHORT_OF_MEMORY.set()
    _SPARE.clear()


def _copy(source: memoryview, target: memoryview) -> None:
    """Copy bytes. The copy of many releases the GIL, so that training continues meanwhile."""
    if source.readonly or len(source) < UNIT:
        target[:] = source
        return
    ctypes.memmove(_address(target), _address(source), len(source))


def _address(memory: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
