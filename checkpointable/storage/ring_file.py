"""A file of fixed size that keeps the last few thousand numbered values, also if its process is killed.

The file is mapped into memory, so a record is two writes to memory, and the system keeps them when the process is
killed. A write to mapped memory that the disk has no room for ends the process with SIGBUS. So the room is allocated
before the file is mapped, and only on file systems that keep what they have allocated: one that copies on write may
need new room for each change. On all others a record is one ``pwrite``, which at worst raises an ``OSError``.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checkpointable.storage.files import open_file

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # on Windows, where files have no such locks

_MAGIC = f"checkpointable trace 1 {sys.byteorder}\n".encode()
_HEAD_BYTES = 4096
_RECORD = struct.Struct("=QQ")  # the value's bits, and its number with a check
_FLOAT, _BITS = struct.Struct("=d"), struct.Struct("=Q")
_RECORDS = 8192
_LARGEST_BYTES = 1 << 24  # more is not read
_KEEP_ROOM = {"ext4", "xfs", "tmpfs"}
_LOW = 0xFFFFFFFF


def bits_of(value: float) -> int:
    """The 64 bits of a float, which are equal also for two NaN."""
    (bits,) = _BITS.unpack(_FLOAT.pack(value))
    return int(bits)


def value_of(bits: int) -> float:
    """The float that has these bits."""
    (value,) = _FLOAT.unpack(_BITS.pack(bits))
    return float(value)


class RingFile:
    """Writes records; the newest overwrite the oldest. A forked process writes none.

    Args:
        path: Of the file. One that is there is replaced.
        label: What the file says about itself.
        records: How many it keeps.

    Raises:
        OSError: If there is no room for the file, or the system has no way to write it in place.
    """

    def __init__(self, path: str, label: bytes, *, records: int = _RECORDS) -> None:
        if not hasattr(os, "pwrite"):
            raise OSError("this system has no pwrite")
        Path(path).unlink(missing_ok=True)
        with contextlib.ExitStack() as undo:
            with open(path, "xb", opener=_open_for_both) as file:
                undo.callback(Path(path).unlink, missing_ok=True)
                file.write(_head(label).ljust(_HEAD_BYTES + records * _RECORD.size, b"\0"))
                file.flush()
                self._file = os.dup(file.fileno())
                _lock(self._file)
            undo.pop_all()
        self._records = records
        self._is_open = True
        self._map = _map(self._file)
        self._words = None if self._map is None else _words(self._map)
        _OPEN.add(self)

    @property
    def is_mapped(self) -> bool:
        """Whether records are written to mapped memory."""
        return self._map is not None

    def record(self, number: int, value: float) -> None:
        """Write a value and its number, which is at least 1.

        Raises:
            OSError: If the file is not mapped, and the disk refuses.
        """
        slot = number % self._records
        if self._words is not None:
            floats, words = self._words
            floats[2 * slot] = value
            bits = words[2 * slot]
            words[2 * slot + 1] = ((number ^ bits ^ bits >> 32) & _LOW) << 32 | number  # _checked, without a call
        elif self._is_open:
            record = _RECORD.pack(bits := bits_of(value), _checked(number, bits))
            os.pwrite(self._file, record, _HEAD_BYTES + slot * _RECORD.size)

    def relabel(self, label: bytes) -> None:
        """Change what the file says about itself."""
        if self._is_open:
            os.pwrite(self._file, _head(label), 0)

    def close(self) -> None:
        """Write no more. The file stays."""
        if self._is_open:
            self._is_open = False
            for words in self._words or ():
                words.release()
            self._words = None
            if self._map is not None:
                self._map.close()
            os.close(self._file)


@dataclass(frozen=True)
class Ring:
    """What is read from the file of a ring: its label, and the bits of each number that it still has."""

    label: bytes
    records: dict[int, int]


def read(path: str) -> Ring | None:
    """Read a ring; ``None`` if the file is none. A record that a kill has cut short is left out.

    Raises:
        OSError: If it cannot be read.
    """
    with open_file(path) as file:
        content = file.read(_LARGEST_BYTES)
    if not content.startswith(_MAGIC) or len(content) < _HEAD_BYTES:
        return None
    label = content[len(_MAGIC) : _HEAD_BYTES].rstrip(b"\0")
    return Ring(label, dict(_intact(content[_HEAD_BYTES:])))


def is_in_use(path: str) -> bool:
    """Whether a process that is alive may be writing a ring's file; also true where that can't be found out.

    Raises:
        OSError: If the file cannot be opened.
    """
    with open_file(path) as file:
        return not _lock(file.fileno())


def _lock(descriptor: int) -> bool:
    """Lock a file until it is closed, also by the end of the process; returns whether that is done."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked by another process, or no locks on this file system
        return False
    return True


def _intact(content: bytes) -> Iterator[tuple[int, int]]:
    for bits, checked in _RECORD.iter_unpack(content[: len(content) // _RECORD.size * _RECORD.size]):
        number = checked & _LOW
        if number and _checked(number, bits) == checked:
            yield number, bits


def _checked(number: int, bits: int) -> int:
    """A number below 2**32 with the XOR of itself and its value's bits, by which a record cut short is found."""
    return ((number ^ bits ^ bits >> 32) & _LOW) << 32 | number


def _head(label: bytes) -> bytes:
    head = _MAGIC + label
    if len(head) > _HEAD_BYTES:
        raise ValueError(f"a label of {len(label)} bytes does not fit into {_HEAD_BYTES}")
    return head.ljust(_HEAD_BYTES, b"\0")


def _open_for_both(path: str, flags: int) -> int:
    """As ``open`` does, but for reading, too: without it the file cannot be mapped."""
    return os.open(path, flags & ~os.O_WRONLY | os.O_RDWR, 0o666)


def _map(descriptor: int) -> mmap.mmap | None:
    """The file in memory; ``None`` if a write to it might find no room."""
    if not hasattr(os, "posix_fallocate") or not _keeps_room(descriptor):
        return None
    try:
        os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size)
        return mmap.mmap(descriptor, 0)
    except OSError:  # refused: pwrite does without it
        return None


def _keeps_room(descriptor: int) -> bool:
    """Whether the file system is one that keeps the room that it has allocated."""
    device = os.fstat(descriptor).st_dev
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kinds = {line.partition(" - ")[2].split(" ")[0] for line in mounts if line.split(" ")[2] == wanted}
    return bool(kinds) and kinds <= _KEEP_ROOM


def _words(mapped: mmap.mmap) -> tuple[memoryview[float], memoryview[int]]:
    """The records as words of 64 bits, as floats and as numbers."""
    records = memoryview(mapped)[_HEAD_BYTES:]
    return records.cast("d"), records.cast("Q")


_OPEN: weakref.WeakSet[RingFile] = weakref.WeakSet()


def _close_inherited() -> None:
    """In a forked process: the rings are those of its parent."""
    for ring in list(_OPEN):
        ring.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
