"""Reads a remote file by ranges: its end, which holds the metadata, in one request, the rest in growing ones."""

from __future__ import annotations

import io
import os
from typing import Any

from checkpointable.storage.paths import filesystem, reaching
from checkpointable.storage.waiting import ask

_LEAST = 1 << 19
_MOST = 1 << 25
_PART = 1 << 23  # parts of a window are fetched at the same time


class RangeReader(io.RawIOBase):
    """A remote file, open for reading. A read may return less than requested: wrap it in an ``io.BufferedReader``.

    Args:
        url: The file.
        size: Its size in bytes, as a listing has told it; ``None`` to ask for it.
    """

    def __init__(self, url: str, size: int | None = None) -> None:
        self._url = url
        self._files, self._path = filesystem(url)
        self._size = self._asked_size() if size is None else size
        self._window = memoryview(b"")
        self._start = self._at = 0
        self._length = _LEAST

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another offset, and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self._url} has no byte {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read into the buffer from the current offset, and return the number of bytes; 0 at the end."""
        wanted = memoryview(buffer).cast("B")
        if not self._start <= self._at < self._start + len(self._window) and self._at < self._size:
            self._load()
        here = self._window[self._at - self._start :][: len(wanted)] if self._at < self._size else memoryview(b"")
        wanted[: len(here)] = here
        self._at += len(here)
        return len(here)

    def _asked_size(self) -> int:
        info = ask(self._url, lambda: self._files.info(self._path))
        if info["type"] != "file":
            raise FileNotFoundError(f"{self._url} is not a file")
        return int(info["size"])

    def _load(self) -> None:
        """Fetch the next window: at the end all that is left; while reading is sequential, twice as much each time."""
        is_sequential = 0 <= self._at - self._start - len(self._window) < _LEAST and self._at > 0
        self._length = min(2 * self._length, _MOST) if is_sequential else _LEAST
        start = min(self._at, max(self._size - _LEAST, 0))
        end = min(start + self._length, self._size)
        starts = list(range(start, end, _PART))
        ends = [*starts[1:], end]
        parts = ask(self._url, lambda: self._files.cat_ranges([self._path] * len(starts), starts, ends))
        with reaching(self._url):
            for failure in (part for part in parts if isinstance(part, BaseException)):
                raise failure
        self._start, self._window = start, memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
