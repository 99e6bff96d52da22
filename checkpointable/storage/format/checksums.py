"""Reads an archive's members through and compares their checksums: ``ZipFile.testzip``, several times as fast."""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import BinaryIO

_BLOCK = 1 << 22
_UTF_8 = 0x800
_FLAGS = _UTF_8 | 0x8  # a descriptor follows the data
_HEADER = struct.Struct("<4s22x2H")


def first_damaged(file: BinaryIO, archive: zipfile.ZipFile) -> str | None:
    """The first member whose bytes are not those that were written, or ``None``.

    Args:
        file: The archive's file.
        archive: Opened on it.

    Raises:
        zipfile.BadZipFile: If a member's header is not one.
        EOFError: If the file ends within a member.
    """
    if not all(_is_plain(info) for info in archive.infolist()):
        return archive.testzip()  # not a file of torch's, or damaged; slowly, then
    block = memoryview(bytearray(_BLOCK))
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        file.seek(info.header_offset)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise EOFError(f"it ends before the header of {info.filename}")
        mark, name_size, extra_size = _HEADER.unpack(header)
        if mark != b"PK\3\4" or file.read(name_size) != info.orig_filename.encode():
            raise zipfile.BadZipFile(f"the header of {info.filename} is not one")
        file.seek(extra_size, 1)
        if info.compress_size != info.file_size or _checksum(file, info.file_size, block) != info.CRC:
            return info.filename
    return None


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """Whether the directory says of a member what it says of those that torch writes."""
    named = info.flag_bits & _UTF_8 != 0 or info.orig_filename.isascii()
    return info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & ~_FLAGS and named


def _checksum(file: BinaryIO, size: int, block: memoryview) -> int:
    crc = 0
    while size:
        count = file.readinto(block[: min(size, len(block))])  # type: ignore[attr-defined]  # every file of ours has it
        if not count:
            raise EOFError(f"it ends {size:,} bytes too early")
        crc = zlib.crc32(block[:count], crc)
        size -= count
    return crc
