"""A checkpoint file: the archive that ``torch.save`` writes, and one member that tells what it is.

The member lies after torch's own, so every offset that torch computes still holds. It is read with the standard
library, no tensor touched. The archive's CRC-32 of each member is the integrity check; ``torch.load`` ignores it.
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

import torch

from checkpointable._errors import CheckpointFileError

MEMBER = "checkpointable.json"
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
# The end of a zip archive (APPNOTE.TXT 4.3.14 to 4.3.16): how many members, where the directory lies.
_END = struct.Struct("<4s4H2LH")
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_ZIP64_LOCATOR_SIZE = 20
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def write(checkpoint: Mapping[str, Any], file: BinaryIO, metadata: Mapping[str, Any] | None) -> None:
    """Write a checkpoint, and its metadata as the archive's last member.

    Args:
        checkpoint: What ``torch.save`` is to pickle.
        file: Open for reading and writing, empty.
        metadata: Plain numbers, strings, lists and mappings; ``None`` writes no member.
    """
    torch.save(checkpoint, file)
    if metadata is None:
        return
    with zipfile.ZipFile(file, "a") as archive:
        root = archive.namelist()[0].split("/", 1)[0]
        archive.writestr(f"{root}/{MEMBER}", json.dumps(_encode(metadata), allow_nan=False))


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
    if len(names) != _listed(file, size):
        return "its directory does not list the members that it counts: the bytes were changed after they were written"
    return (
        None
        if any(name.endswith("/data.pkl") for name in names)
        else "a zip archive, but not one that torch.save wrote"
    )


def _listed(file: BinaryIO, size: int) -> int:
    """How many members the archive's last record counts; the standard library reads on without comparing."""
    file.seek(size - _END.size)
    count: int = _END.unpack(file.read(_END.size))[4]
    if count < 0xFFFF:
        return count
    file.seek(size - _END.size - _ZIP64_LOCATOR_SIZE - _ZIP64_END.size)
    return int(_ZIP64_END.unpack(file.read(_ZIP64_END.size))[7])


def _encode(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and value.get("float") in _NOT_FINITE:
            return _NOT_FINITE[value["float"]]
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value
