"""A checkpoint file: the archive that ``torch.save`` writes, and one member that tells what it is.

The member lies after torch's own, so every offset that torch computes still holds. It is read with the standard
library, no tensor touched. The archive's CRC-32 of each member is the integrity check; ``torch.load`` ignores it.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch

from checkpointable._errors import CheckpointFileError

MEMBER = "checkpointable.json"
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
_SEAL = b"checkpointable crc32 "
_FLOAT = "__float__"  # JSON has no infinity and no NaN
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def write(checkpoint: Mapping[str, Any], file: BinaryIO, metadata: Mapping[str, Any] | None) -> None:
    """Write a checkpoint; with its metadata as the archive's last member, and a seal on the archive's directory.

    Args:
        checkpoint: What ``torch.save`` is to pickle.
        file: Open for reading and writing, empty.
        metadata: Plain numbers, strings, lists and mappings; ``None`` writes no member.

    Raises:
        OSError: If the file system refuses.
    """
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        raise _behind(error) from error
    if metadata is None:
        return
    with zipfile.ZipFile(file, "a") as archive:
        root = archive.namelist()[0].split("/", 1)[0]
        archive.writestr(f"{root}/{MEMBER}", json.dumps(_encode(metadata), allow_nan=False))
        archive.comment = _seal(0)
    size = file.seek(0, os.SEEK_END)
    seal = _seal(_directory_checksum(file, archive.start_dir, size))
    file.seek(size - len(seal))
    file.write(seal)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a checkpoint file.

    Raises:
        CheckpointFileError: If the file is no archive, or has no readable metadata.
        OSError: If the file cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                member = next((name for name in archive.namelist() if name.endswith(f"/{MEMBER}")), None)
                decoded = None if member is None else _decode(json.loads(archive.read(member)))
        except _DAMAGE as error:
            raise CheckpointFileError(f"{os.fspath(path)} is not a whole checkpoint: {error}.") from error
    if decoded is None:
        raise CheckpointFileError(f"{os.fspath(path)} has no metadata: it was not written by checkpointable.")
    if not isinstance(decoded, dict):
        raise CheckpointFileError(f"{os.fspath(path)} has metadata of another kind: {type(decoded).__name__}.")
    return decoded


def problem(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with the bytes of a checkpoint file, or ``None``. Reads the whole file."""
    try:
        with open(path, "rb") as file:
            return _problem(file)
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return f"cannot be opened: {error}"


def _problem(file: BinaryIO) -> str | None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return "an empty file"
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        return f"not a whole zip archive ({size:,} bytes; {error})"
    except _DAMAGE as error:
        return f"cannot be read through: {type(error).__name__}: {error}"
    if damaged is not None:
        return f"the checksum of its member {damaged} does not match: the bytes were changed after they were written"
    ours = any(name.endswith(f"/{MEMBER}") for name in names) or archive.comment.startswith(_SEAL)
    if ours and archive.comment != _seal(_directory_checksum(file, archive.start_dir, size)):
        return "the checksum of its directory does not match: the bytes were changed after they were written"
    return (
        None
        if any(name.endswith("/data.pkl") for name in names)
        else "a zip archive, but not one that torch.save wrote"
    )


def _seal(checksum: int) -> bytes:
    """The archive's comment. The members have checksums of their own; what lists them has this one."""
    return _SEAL + f"{checksum:08x}".encode()


def _directory_checksum(file: BinaryIO, start: int, size: int) -> int:
    """CRC-32 of an archive from its directory to its end, without the seal."""
    file.seek(start)
    return zlib.crc32(file.read(size - start - len(_seal(0))))


def _behind(error: BaseException) -> BaseException:
    """The ``OSError`` that torch's writer hides behind one of its own when a disk is full; else the error itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return error if cause is None else cause


def _encode(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(value)}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(text := value.get(_FLOAT), str) and text in _NOT_FINITE:
            return _NOT_FINITE[text]
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value
