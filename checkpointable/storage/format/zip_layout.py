"""Every byte of a checkpoint file: a zip archive as ``torch.save`` writes it, sealed by a checksum of its directory.

Torch computes offsets without reading the file (``calculate_storage_offsets`` of ``torch.utils.serialization``, loads
of fake tensors). So alignment, padding and the limits from which zip uses 64 bits are those of torch
(``caffe2/serialize/inline_container.cc`` and its copy of miniz). ``tests/storage/format/test_zip_layout.py`` compares.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from checkpointable.storage.format import archive
from checkpointable.storage.format.checksum import crc32

ROOT = "archive"  # as torch names an archive that it writes to a buffer
ID = ".data/serialization_id"  # the member that is computed from the checksums of those before it
ID_SIZE = 40
_ID_NAME = f"{ROOT}/{ID}".encode()
_PIECE = 1 << 23
_SMALL = 1 << 16  # data below this is joined
_JOINED = 1 << 17  # larger pieces would be new memory each time, with a page fault for every 4 KB
_LIMIT = 0xFFFFFFFF  # numbers from here on take 64 bits
_PADDING = b"FB"  # how torch marks the extra field that moves data to its alignment
_ZIP64 = 1
_HEADER, _ENTRY = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I")
_ENTRY_CRC = 16  # where the checksum lies in an entry
_LATEST: dict[int, tuple[tuple[tuple[str, int], ...], list[Place]]] = {}  # by alignment: what was laid out last


@dataclass(eq=False)
class Place:
    """Where one member of the archive lies. What does not depend on its data is made once."""

    name: bytes  # with the root of the archive
    size: int
    start: int  # offset of its header
    data: int  # offset of its data

    @property
    def end(self) -> int:
        """Offset behind its descriptor."""
        return self.data + self.size + (8 + len(self._sizes) if self.size else 0)

    @cached_property
    def header(self) -> bytes:
        """The bytes between ``start`` and ``data``. The descriptor and the directory hold sizes and checksum."""
        large = _large(self.size, self.start, packed=0)
        padding = self.data - self.start - 30 - len(self.name) - len(large) - 4
        extra = large + _PADDING + struct.pack("<H", padding) + b"Z" * padding
        fixed = _HEADER.pack(b"PK\3\4", 0, _flags(self.size), 0, 0, 0, 0, 0, 0, len(self.name), len(extra))
        return fixed + self.name + extra

    def descriptor(self, crc: int) -> bytes:
        """The bytes between the data and ``end``: checksum and sizes."""
        return b"PK\7\10" + crc.to_bytes(4, "little") + self._sizes if self.size else b""

    @cached_property
    def _sizes(self) -> bytes:
        return struct.pack("<QQ" if max(self.size, self.start) >= _LIMIT else "<II", self.size, self.size)

    def entry(self, crc: int) -> bytes:
        """Its entry in the directory of the archive."""
        before, after = self._entry
        return before + crc.to_bytes(4, "little") + after

    @cached_property
    def entry_size(self) -> int:
        """Bytes of its entry."""
        return _ENTRY.size + len(self.name) + len(_large(self.size, self.start))

    @cached_property
    def _entry(self) -> tuple[bytes, bytes]:
        """The entry before and after the checksum."""
        large = _large(self.size, self.start)
        size, start = min(self.size, _LIMIT), min(self.start, _LIMIT)
        lengths = (len(self.name), len(large), 0)
        fixed = _ENTRY.pack(b"PK\1\2", 0, 0, _flags(self.size), 0, 0, 0, 0, size, size, *lengths, 0, 0, 0, start)
        return fixed[:_ENTRY_CRC], fixed[_ENTRY_CRC + 4 :] + self.name + large


class Span(NamedTuple):
    """Bytes that follow each other in the file, and what their CRC-32 is, continued from another one."""

    data: memoryview
    crc_before: int
    crc: int


def lay_out(members: Iterable[tuple[str, int]], *, alignment: int) -> list[Place]:
    """Place the members, given by names without the root and sizes. Data starts at multiples of ``alignment``.

    The first members that are the same as in the latest archive are not placed again: from save to save nearly all are.
    """
    members = tuple(members)
    latest, places = _LATEST.get(alignment, ((), []))
    pairs = enumerate(zip(members, latest, strict=False))
    same = next((at for at, (member, other) in pairs if member != other), min(len(members), len(latest)))
    places = [*places[:same], *_placed(members[same:], places[same - 1].end if same else 0, alignment)]
    _LATEST[alignment] = members, places
    return places


def _placed(members: Iterable[tuple[str, int]], start: int, alignment: int) -> Iterator[Place]:
    for name, size in members:
        full = f"{ROOT}/{name}".encode()
        least = start + 30 + len(full) + len(_large(size, start)) + 4
        place = Place(full, size, start, -(-least // alignment) * alignment)
        start = place.end
        yield place


def pieces(places: Sequence[Place], data: Sequence[bytes | memoryview], *, sealed: bool) -> Iterator[memoryview]:
    """The bytes of the archive in order. Arguments are those of ``spans``."""
    for span in spans(places, data, sealed=sealed):
        yield span.data


def spans(places: Sequence[Place], data: Sequence[bytes | memoryview], *, sealed: bool) -> Iterator[Span]:
    """The bytes of the archive in order. Large data is not copied; small data is joined with all around it.

    Args:
        places: Where the members lie.
        data: The bytes of each member. Those of the member ``ID`` are computed here instead.
        sealed: Whether the archive ends with the checksum of its directory.
    """
    joined = bytearray()
    crcs: list[int] = []
    for place, content in zip(places, data, strict=True):
        joined += place.header
        if place.size < _SMALL:
            joined += _identity(places, crcs) if place.name == _ID_NAME else content
            crc = crc32(memoryview(joined)[-place.size :]) if place.size else 0  # of the copy: nothing changes that
        else:
            yield _whole(joined)
            joined, crc = bytearray(), 0
            for start in range(0, place.size, _PIECE):
                piece, before = memoryview(content)[start : start + _PIECE], crc
                crc = crc32(piece, before)
                yield Span(piece, before, crc)
        joined += place.descriptor(crc)
        crcs.append(crc)
        if len(joined) >= _JOINED:
            yield _whole(joined)
            joined = bytearray()
    last = directory(places, crcs, comment_size=archive.SEAL_SIZE if sealed else 0)
    joined += last
    if sealed:
        joined += archive.seal(zlib.crc32(last))
    yield _whole(joined)


def _whole(joined: bytearray) -> Span:
    return Span(memoryview(joined), 0, crc32(joined))


def size(places: Sequence[Place], *, sealed: bool) -> int:
    """Bytes of the archive."""
    return places[-1].end + directory_size(places) + (archive.SEAL_SIZE if sealed else 0)


def _identity(places: Sequence[Place], crcs: Sequence[int]) -> bytes:
    """The content of the member ``ID``: like torch, 20 digits for the names of the members and 20 for their data."""
    names = zlib.crc32(b"\0".join(place.name for place in places))
    return f"{names:020d}{zlib.crc32(json.dumps(crcs).encode()):020d}".encode()


def directory(places: Sequence[Place], crcs: Sequence[int], *, comment_size: int) -> bytes:
    """The end of the archive without its comment."""
    entries = b"".join(place.entry(crc) for place, crc in zip(places, crcs, strict=True))
    return entries + end(len(places), len(entries), places[-1].end, comment_size=comment_size)


def end(count: int, size: int, start: int, *, comment_size: int) -> bytes:
    """What follows the entries of so many members, which take ``size`` bytes from ``start`` on."""
    end64 = struct.pack("<4sQHHII4Q", b"PK\6\6", 44, 0x031E, 0x2D, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1)
    few = min(count, 0xFFFF)
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, few, few, min(size, _LIMIT), min(start, _LIMIT), comment_size)
    return end64 + locator + last


def directory_size(places: Sequence[Place]) -> int:
    """Bytes of the directory, without the comment."""
    return sum([place.entry_size for place in places]) + 56 + 20 + 22


def _large(size: int, start: int, *, packed: int | None = None) -> bytes:
    """The extra field for numbers that take 64 bits; empty if none does. ``packed`` is 0 in the headers of torch."""
    if size < _LIMIT and start < _LIMIT:
        return b""
    numbers = [size, size if packed is None else packed] * (size >= _LIMIT) + [start] * (start >= _LIMIT)
    return struct.pack(f"<HH{len(numbers)}Q", _ZIP64, 8 * len(numbers), *numbers)


def _flags(size: int) -> int:
    """Names are UTF-8. A descriptor follows the data unless there is no data."""
    return 0x808 if size else 0x800
