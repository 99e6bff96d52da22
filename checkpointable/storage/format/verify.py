"""Whether every byte of a checkpoint file is as it was written.

A file of ours is known to the byte: its directory says which members there are, and from their names and sizes follow
all headers, and the end. A file of others is read through, and each member is compared with its checksum.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

from checkpointable._errors import RemoteError
from checkpointable.storage.files import open_file
from checkpointable.storage.format import archive, zip_directory, zip_layout
from checkpointable.storage.format.checksum import crc32
from checkpointable.storage.format.zip_directory import DESCRIBED, UTF_8, Directory

_BLOCK = 1 << 22
_LARGE = 1 << 20
_HEADER = struct.Struct("<4s22x2H")
_ROOT = f"{zip_layout.ROOT}/".encode()
_CHANGED = "the bytes were changed after they were written"


def problem(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with the bytes of a checkpoint file, local or remote, or ``None``. Reads all of it."""
    try:
        with open_file(path) as file:
            return problem_in(file)
    except FileNotFoundError:
        return "there is no such file"
    except RemoteError:
        raise
    except OSError as error:
        return f"cannot be opened: {error}"


def problem_in(file: BinaryIO, read: Mapping[bytes, int] | None = None) -> str | None:
    """What is wrong with the bytes of an open checkpoint file, or ``None``. Reads all of it.

    ``read``: the checksums of members that were read already, in a file of ours.
    """
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return "an empty file"
    try:
        directory = zip_directory.read(file)
        if archive.is_sealed(directory):
            return next(_of_ours(file, directory, read or {}), None)
        names = [entry.name for entry in directory.entries()]
        if any(name.endswith(archive.MEMBER.encode()) for name in names):
            return f"the checksum of its directory does not match: {_CHANGED}"
        file.seek(0)
        if file.read(4) != b"PK\3\4":
            return "there are bytes before its first member"
        if len(set(names)) < len(names):
            return "it has two members of one name"
        with zipfile.ZipFile(file) as opened:
            damaged = first_damaged(file, opened)
    except zipfile.BadZipFile as error:
        return f"not an intact zip archive ({size:,} bytes; {error})"
    except RemoteError:
        raise
    except archive.DAMAGE as error:
        return f"cannot be read to its end: {type(error).__name__}: {error}"
    if damaged is not None:
        return f"the checksum of its member {damaged} does not match: {_CHANGED}"
    if not any(name.endswith(b"/data.pkl") for name in names):
        return "a zip archive, but not one that torch.save wrote"
    return None


class Written(NamedTuple):
    """The next bytes of a file that was written: how many, and their CRC-32, continued from another one."""

    size: int
    crc_before: int
    crc: int


def difference(file: BinaryIO, written: Iterable[Written]) -> str | None:
    """Where an open file is not what was written into it, or ``None``. Reads all of it, by parts of some MB.

    The members are not looked at one by one: of many small ones, that would take most of the time.
    """
    block = memoryview(bytearray(_BLOCK))
    at = 0
    try:
        file.seek(0)
        for size, crc_before, crc in written:
            if _checksum(file, size, block, crc_before) != crc:
                return f"its bytes {at:,} to {at + size - 1:,} are not those that were written"
            at += size
        return f"it is longer than the {at:,} bytes that were written" if file.read(1) else None
    except archive.DAMAGE as error:
        return f"cannot be read to its end: {type(error).__name__}: {error}"


def _of_ours(file: BinaryIO, directory: Directory, read: Mapping[bytes, int]) -> Iterator[str]:
    """What is wrong with a file of ours, of which every byte is known but for the data. It is read from end to end."""
    if not archive.has_intact_seal(directory):
        yield f"the checksum of its directory does not match: {_CHANGED}"
    block = memoryview(bytearray(_BLOCK))
    names: set[bytes] = set()
    at = 0
    file.seek(0)
    for entry in directory.entries():
        name = entry.name.decode(errors="replace")
        if not entry.name.startswith(_ROOT) or b".." in entry.name or entry.name in names:
            yield f"its member {name} is there twice, or lies outside its root"
        names.add(entry.name)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise EOFError(f"it ends before the header of {name}")
        mark, name_size, extra_size = _HEADER.unpack(header)
        if mark != b"PK\3\4" or entry.start != at:
            raise zipfile.BadZipFile(f"{name} is not where its directory says")
        place = zip_layout.Place(entry.name, entry.size, at, at + _HEADER.size + name_size + extra_size)
        if header + file.read(name_size + extra_size) != place.header or entry.raw != place.entry(entry.checksum):
            yield f"the header of its member {name} is not that of its directory: {_CHANGED}"
        checksum = read.get(entry.name)
        if checksum is None:
            checksum = _checksum(file, place.size, block)
        else:
            file.seek(place.size, os.SEEK_CUR)
        descriptor = place.descriptor(checksum)
        if checksum != entry.checksum or file.read(len(descriptor)) != descriptor:
            yield f"the checksum of its member {name} does not match: {_CHANGED}"
        at = place.end
    if at != directory.start:
        raise zipfile.BadZipFile(f"there are {directory.start - at:,} bytes between its members and its directory")
    size = len(directory.raw)
    if directory.end != zip_layout.end(len(names), size, at, comment_size=archive.SEAL_SIZE):
        raise zipfile.BadZipFile("its end does not fit its directory")
    if _ROOT + b"data.pkl" not in names:
        yield "a zip archive, but not one that torch.save wrote"


def first_damaged(file: BinaryIO, opened: zipfile.ZipFile) -> str | None:
    """The name of the first member whose bytes do not match its checksum, or ``None``. One cut short is an error."""
    if not all(_is_plain(info) for info in opened.infolist()):
        return opened.testzip()  # another tool wrote it, or it is damaged; this is slower
    block = memoryview(bytearray(_BLOCK))
    for info in sorted(opened.infolist(), key=lambda info: info.header_offset):
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
    named = info.flag_bits & UTF_8 != 0 or info.orig_filename.isascii()
    return info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & ~(UTF_8 | DESCRIBED) and named


def _checksum(file: BinaryIO, size: int, block: memoryview, crc: int = 0) -> int:
    for piece in _pieces(file, size, block):
        crc = crc32(piece, crc)
        size -= len(piece)
    if size:
        raise EOFError(f"it ends {size:,} bytes too early")
    return crc


def _pieces(file: BinaryIO, size: int, block: memoryview) -> Iterator[memoryview]:
    """The next bytes of a file, fewer where it ends: in its own memory if it shows that, else in ``block``."""
    views = getattr(getattr(file, "raw", None), "views", None)
    if views is not None and size >= _LARGE:
        yield from views(file.tell(), size)
        file.seek(size, os.SEEK_CUR)
        return
    while size and (count := file.readinto(block[: min(size, len(block))])):  # type: ignore[attr-defined]  # they have it
        yield block[:count]
        size -= count
