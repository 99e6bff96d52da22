"""A checkpoint file: the archive that ``torch.save`` writes, and one or two more members, of metadata and history.

They follow those of torch, so the offsets that torch computes hold. They are read with the standard library, without
reading a tensor. The metadata is the last one, beside the directory, so that both are read at once. The CRC-32 of each
member shows whether the file is intact; ``torch.load`` ignores it. Where a remote file system does not answer, all
functions here raise ``RemoteError``: that tells nothing about the file.
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
from checkpointable.storage.format import zip_directory

MEMBER = "checkpointable.json"
HISTORY_MEMBER = "checkpointable_history.json"
_SEAL = b"checkpointable crc32 "
SEAL_SIZE = len(_SEAL) + 8
_MOST_METADATA = 1 << 22  # bytes
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
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
    content = _read_member(file, path, MEMBER)
    if content is None:
        raise CheckpointFileError(f"{path} has no metadata: it was not written by checkpointable.")
    return _decoded(content, path)


def read_history_in(file: BinaryIO, path: str) -> dict[str, Any] | None:
    """The history in an open checkpoint file; ``None`` if it has none. Raises what ``read_metadata_in`` raises."""
    content = _read_member(file, path, HISTORY_MEMBER)
    return None if content is None else _decoded(content, path)


def history_text_in(file: BinaryIO, path: str) -> str | None:
    """The same as it was written, for a file that is written anew."""
    content = _read_member(file, path, HISTORY_MEMBER)
    return None if content is None else content.decode()


def _read_member(file: BinaryIO, path: str, name: str) -> bytes | None:
    try:
        directory = zip_directory.read(file)
        member = directory.last_named(f"archive/{name}".encode())
        if member is not None and not has_intact_seal(directory):
            raise zipfile.BadZipFile("the checksum of its directory does not match")
        return None if member is None else _content(file, member)
    except RemoteError:
        raise
    except DAMAGE as error:
        raise CheckpointFileError(f"{path} is not an intact checkpoint: {error}.") from error


def _decoded(content: bytes, path: str) -> dict[str, Any]:
    try:
        decoded = json.loads(content, object_hook=decode)
    except DAMAGE as error:
        raise CheckpointFileError(f"{path} is not an intact checkpoint: {error}.") from error
    if not isinstance(decoded, dict):
        raise CheckpointFileError(f"{path} has metadata of another kind: {type(decoded).__name__}.")
    return decoded


def has_intact_seal(directory: zip_directory.Directory) -> bool:
    """Whether the comment of an archive is the checksum of its directory."""
    return directory.comment == seal(zlib.crc32(directory.end, zlib.crc32(directory.raw)))


def is_sealed(directory: zip_directory.Directory) -> bool:
    """Whether an archive ends as ours do."""
    return directory.comment.startswith(_SEAL)


def _content(file: BinaryIO, member: zip_directory.Entry) -> bytes:
    """The bytes of a small member, which is stored as it is."""
    if not member.is_plain or member.packed != member.size or member.size > _MOST_METADATA:
        raise zipfile.BadZipFile(f"metadata of {member.size:,} bytes that was not stored by checkpointable")
    file.seek(zip_directory.data_start(file, member))
    content = file.read(member.size)
    if zlib.crc32(content) != member.checksum:
        raise zipfile.BadZipFile("the checksum of its metadata does not match")
    return content


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
