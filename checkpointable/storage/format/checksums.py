"""Compares the members of an archive with their checksums: ``ZipFile.testzip``, several times as fast."""

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
    """The name of the first member whose bytes do not match its checksum, or ``None``.

    Args:
        file: The file of the archive.
        archive: The archive, opened on that file.

    Raises:
        zipfile.BadZipFile: If a member has no valid header.
        EOFError: If the file ends within a member.
    """
    if not all(_is_plain(info) for info in archive.infolist()):
        return archive.testzip()  # another tool wrote it, or it is damaged; this is slower
    block = memoryview(bytearray(_BLOCK))
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        file.seek(info.header_offset)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise EOFError(f"it ends before the header of {info.filename}")
        mark, name_size, extra_size = _HEADER.unpack(header)
        if mark != b"PK\3\4" or file.read(name_size) != info.orig_filename.encode():
            raise zipfile.BadZipFile(f"{info.filename} has no valid header")
        file.seek(extra_size, 1)
        if info.compress_size != info.file_size or _checksum(file, info.file_size, block) != info.CRC:
            return info.filename
    return None


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """Whether the directory describes a member as torch's writer does: stored, not encrypted, with a UTF-8 name."""
    named = info.flag_bits & _UTF_8 != 0 or info.orig_filename.isascii()
    return info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & ~_FLAGS and named


def _checksum(file: BinaryIO, size: int, block: memoryview) -> int:
    crc = 0
    while size:
        count = file.readinto(block[: min(size, len(block))])  # type: ignore[attr-defined]  # all files passed here have it
        if not count:
            raise EOFError(f"it ends {size:,} bytes too early")
        crc = zlib.crc32(block[:count], crc)
        size -= count
    return crc
