"""The directory at the end of a zip archive, strictly: it ends the file, and it is where the end says that it is.

``zipfile`` forgives bytes before an archive, and reads the last of several; torch follows offsets from the first byte.
A directory that is longer than ``MOST_BYTES`` is refused before it is read, whatever the file says.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MOST_BYTES = 1 << 24  # of a directory: some 200,000 members
_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHII4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_USUAL = 256  # bytes of the end of an archive, with the comment of ours
_LONGEST = (1 << 16) + _END.size + _LOCATOR.size + _END64.size
_LIMIT = 0xFFFFFFFF
UTF_8, DESCRIBED = 0x800, 0x8  # flags: the name is UTF-8, and a descriptor follows the data
_ZIP64 = 1
_LENGTHS_AT = 26  # in the header of a member: those of its name and its extra field


@dataclass(frozen=True, slots=True)
class Entry:
    """One member, as the directory describes it."""

    name: bytes
    flags: int
    compression: int
    checksum: int
    packed: int
    size: int
    start: int
    raw: bytes

    @property
    def is_plain(self) -> bool:
        """Whether it is stored as it is: neither compressed nor encrypted."""
        return not self.compression and not self.flags & ~(UTF_8 | DESCRIBED)


@dataclass(frozen=True, kw_only=True)
class Directory:
    """Where the entries lie, what they are, and the comment of the archive. ``end`` is what follows the entries."""

    start: int
    raw: bytes
    end: bytes
    comment: bytes

    def entries(self) -> Iterator[Entry]:
        """The members in order; ``BadZipFile`` if the bytes are none."""
        at = 0
        while at < len(self.raw):
            entry = self.entry_at(at)
            yield entry
            at += len(entry.raw)

    def last_named(self, name: bytes) -> Entry | None:
        """The last member of that name, found without looking at all others."""
        at = self.raw.rfind(name)
        if at < _ENTRY.size:
            return None
        entry = self.entry_at(at - _ENTRY.size)
        return entry if entry.name == name else None

    def entry_at(self, at: int) -> Entry:
        """The member whose entry begins there; ``BadZipFile`` if none does."""
        if self.raw[at : at + 4] != b"PK\1\2" or at + _ENTRY.size > len(self.raw):
            raise zipfile.BadZipFile(f"no entry at byte {self.start + at:,}")
        fields = _ENTRY.unpack_from(self.raw, at)
        flags, compression, *_ = fields[3:]
        (checksum, packed, size), lengths, start = fields[7:10], fields[10:13], fields[16]
        name_end, extra_end = at + _ENTRY.size + lengths[0], at + _ENTRY.size + lengths[0] + lengths[1]
        if _LIMIT in (size, packed, start):
            size, packed, start = _with_64_bits(self.raw[name_end:extra_end], size, packed, start)
        name, end = self.raw[at + _ENTRY.size : name_end], extra_end + lengths[2]
        return Entry(name, flags, compression, checksum, packed, size, start, self.raw[at:end])


def read(file: BinaryIO) -> Directory:
    """The directory of an open archive.

    Raises:
        BadZipFile: If it is not at the end of the file, or is longer than ``MOST_BYTES``.
    """
    size = file.seek(0, os.SEEK_END)
    for length in (_USUAL, _LONGEST):
        tail_start = max(size - length, 0)
        file.seek(tail_start)
        tail = file.read(length)
        at = next(_ends(tail), None)
        if at is not None:
            break
    else:
        raise zipfile.BadZipFile("no directory at its end")
    *_, length, start, _ = _END.unpack_from(tail, at)
    end = at
    locator, end64 = at - _LOCATOR.size, at - _LOCATOR.size - _END64.size
    if end64 >= 0 and tail[locator:][:4] == b"PK\6\7" and tail[end64:][:4] == b"PK\6\6":
        *_, length, start = _END64.unpack_from(tail, end64)
        end = end64
    if start + length != tail_start + end:
        raise zipfile.BadZipFile("its directory is not where its end says")
    if length > MOST_BYTES:
        raise zipfile.BadZipFile(f"a directory of {length:,} bytes, more than {MOST_BYTES:,}")
    file.seek(start)
    raw = file.read(length)
    if len(raw) != length:
        raise zipfile.BadZipFile("its directory is cut")
    return Directory(start=start, raw=raw, end=tail[end : at + _END.size], comment=tail[at + _END.size :])


def data_start(file: BinaryIO, entry: Entry) -> int:
    """Where the data of a member begins, behind a header of its own."""
    file.seek(entry.start + _LENGTHS_AT)
    name_size, extra_size = struct.unpack("<2H", file.read(4))
    return entry.start + _LENGTHS_AT + 4 + int(name_size) + int(extra_size)


def _ends(tail: bytes) -> Iterator[int]:
    """Where the end of an archive may begin, with a comment that reaches to the end of the file."""
    at = len(tail)
    while (at := tail.rfind(b"PK\5\6", 0, at)) >= 0:
        if len(tail) - at >= _END.size and len(tail) - at - _END.size == int.from_bytes(tail[at + 20 :][:2], "little"):
            yield at


def _with_64_bits(extra: bytes, *numbers: int) -> Iterator[int]:
    """The numbers of an entry; those that do not fit in 32 bits are in its extra field, in this order."""
    large = b""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == _ZIP64:
            large = extra[4 : 4 + length]
        extra = extra[4 + length :]
    for number in numbers:
        if number == _LIMIT and len(large) >= 8:
            yield int.from_bytes(large[:8], "little")
            large = large[8:]
        else:
            yield number
