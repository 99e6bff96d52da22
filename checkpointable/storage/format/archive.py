"""A checkpoint file: the archive that ``torch.save`` writes, and one more member that holds metadata.

That member follows those of torch, so the offsets that torch computes hold. It is read with the standard library,
without reading a tensor. The CRC-32 of each member shows whether the file is intact; ``torch.load`` ignores it. Where a
remote file system does not answer, all functions here raise ``RemoteError``: that tells nothing about the file.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

from checkpointable._errors import CheckpointFileError, RemoteError
from checkpointable.storage.files import open_file

MEMBER = "checkpointable.json"
_SEAL = b"checkpointable crc32 "
SEAL_SIZE = len(_SEAL) + 8
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
_FLOAT = "__float__"  # JSON has no infinity and no NaN
_NOT_FINITE = ("nan", "inf", "-inf")


def encode(metadata: Mapping[str, Any]) -> bytes:
    """The bytes of the metadata member: JSON of plain numbers, strings, lists and mappings."""
    return json.dumps(_encode(metadata), allow_nan=False).encode()


def seal(checksum: int) -> bytes:
    """The comment of a sealed archive: the CRC-32 of its directory. Zip has checksums for members alone."""
    return _SEAL + f"{checksum:08x}".encode()


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a checkpoint file, local or remote. Of a remote one, only its end is fetched."""
    with open_file(path) as file:
        return read_metadata_in(file, os.fspath(path))


def read_metadata_in(file: BinaryIO, path: str) -> dict[str, Any]:
    """The metadata of an open checkpoint file; ``CheckpointFileError`` if it is no archive, or has none to read."""
    try:
        with zipfile.ZipFile(file) as archive:
            member = next((name for name in archive.namelist() if name.endswith(f"/{MEMBER}")), None)
            decoded = None if member is None else json.loads(archive.read(member), object_hook=decode)
    except RemoteError:
        raise
    except _DAMAGE as error:
        raise CheckpointFileError(f"{path} is not an intact checkpoint: {error}.") from error
    if decoded is None:
        raise CheckpointFileError(f"{path} has no metadata: it was not written by checkpointable.")
    if not isinstance(decoded, dict):
        raise CheckpointFileError(f"{path} has metadata of another kind: {type(decoded).__name__}.")
    return decoded


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


def problem_in(file: BinaryIO) -> str | None:
    """What is wrong with the bytes of an open checkpoint file, or ``None``. Reads all of it."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return "an empty file"
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = first_damaged(file, archive)
            names = archive.namelist()
            file.seek(archive.start_dir)
            directory = file.read(max(size - archive.start_dir - SEAL_SIZE, 0))  # 0 if it has shrunk meanwhile
    except zipfile.BadZipFile as error:
        return f"not an intact zip archive ({size:,} bytes; {error})"
    except RemoteError:
        raise
    except _DAMAGE as error:
        return f"cannot be read to its end: {type(error).__name__}: {error}"
    if damaged is not None:
        return f"the checksum of its member {damaged} does not match: the bytes were changed after they were written"
    ours = any(name.endswith(f"/{MEMBER}") for name in names) or archive.comment.startswith(_SEAL)
    if ours and archive.comment != seal(zlib.crc32(directory)):
        return "the checksum of its directory does not match: the bytes were changed after they were written"
    if not any(name.endswith("/data.pkl") for name in names):
        return "a zip archive, but not one that torch.save wrote"
    return None


def _encode(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(value)}
    return value


def decode(value: dict[str, Any]) -> dict[str, Any] | float:
    """The hook of ``json`` that undoes what ``encode`` does to numbers that are not finite."""
    return float(value[_FLOAT]) if len(value) == 1 and value.get(_FLOAT) in _NOT_FINITE else value


_BLOCK = 1 << 22
_UTF_8 = 0x800
_FLAGS = _UTF_8 | 0x8  # a descriptor follows the data
_HEADER = struct.Struct("<4s22x2H")


def first_damaged(file: BinaryIO, archive: zipfile.ZipFile) -> str | None:
    """The name of the first member whose bytes do not match its checksum, or ``None``. One cut short is an error."""
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
