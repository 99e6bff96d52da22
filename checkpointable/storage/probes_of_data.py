"""Tries out how a file system takes the bytes of files: past the page cache, shared between files, through memory."""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import time
from pathlib import Path

from checkpointable.storage import ring_file
from checkpointable.storage.findings import milliseconds_since
from checkpointable.storage.ring_file import RingFile

_DIRECT = getattr(os, "O_DIRECT", 0)
_BYTES, _UNIT = 1 << 20, 1 << 12
_FICLONE = 0x40049409  # of Linux' <linux/fs.h>


def files(folder: Path) -> str:
    """Write a file, read it back and delete it."""
    file, data = folder / "file", secrets.token_bytes(_BYTES)
    file.write_bytes(data)
    if file.read_bytes() != data:
        raise OSError("other bytes are read than were written")
    file.unlink()
    if file.exists():
        raise OSError("a file is there after it was deleted")
    return "written, read back and deleted."


def sync(folder: Path) -> str:
    """Make the bytes of a file durable."""
    with open(folder / "file", "wb") as file:
        file.write(secrets.token_bytes(_BYTES))
        file.flush()
        begun = time.perf_counter()
        os.fsync(file.fileno())
    return f"1 MiB took {milliseconds_since(begun)} (fsync)."


def direct_writes(folder: Path) -> str:
    """Write a block past the page cache, and read it back so."""
    if not _DIRECT:
        raise OSError(errno.ENOTSUP, "this system has none")
    block, back = mmap.mmap(-1, _UNIT), mmap.mmap(-1, _UNIT)
    block.write(secrets.token_bytes(_UNIT))
    descriptor = os.open(folder / "file", os.O_RDWR | os.O_CREAT | os.O_EXCL | _DIRECT, 0o600)
    try:
        os.pwrite(descriptor, block, 0)
        os.preadv(descriptor, [back], 0)
    finally:
        os.close(descriptor)
    if block[:] != back[:]:
        raise OSError("other bytes are read than were written")
    return "written and read past the page cache (O_DIRECT)."


def reflinks(folder: Path) -> str:
    """Make a file that shares the bytes of another."""
    try:
        import fcntl
    except ImportError as error:
        raise OSError(errno.ENOTSUP, "this system has none") from error
    (folder / "file").write_bytes(bytes(_UNIT))
    with open(folder / "file", "rb") as source, open(folder / "copy", "wb") as copy:
        fcntl.ioctl(copy, _FICLONE, source.fileno())
    return "a copy shares the bytes of its original until one of both changes (FICLONE)."


def recorder(folder: Path) -> str:
    """Record a loss as a fit does, and read it back."""
    path = str(folder / "file")
    ring = RingFile(path, b"")
    try:
        ring.record(1, 0.5)
    finally:
        ring.close()
    found = ring_file.read(path)
    if found is None or found.records != {1: ring_file.bits_of(0.5)}:
        raise OSError("a recorded loss is not read back")
    if ring.is_mapped:
        return "its room is allocated, and losses are recorded in mapped memory."
    return "losses are recorded by a write each, as this file system may need new room for a changed block."
