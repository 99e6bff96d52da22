"""A checkpoint in shards: a directory of files that torch writes, and a marker that states what they hold.

The marker is written last. It is JSON: the metadata, the size and the CRC-32 of each other file, and its own CRC-32. A
directory without it is no checkpoint of this library. Nothing here opens a pickle.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from checkpointable._errors import CheckpointFileError
from checkpointable.storage.files import open_file
from checkpointable.storage.format.archive import decode, encode
from checkpointable.storage.format.checksum import crc32
from checkpointable.storage.paths import is_remote

MARKER = "checkpointable.json"
REST = "meta.pt"  # the file that has all but weights and optimizers; Lightning writes it last
SHARD = ".distcp"  # what torch.distributed.checkpoint writes
_BLOCK = 1 << 22
_MOST_BYTES = 1 << 26  # of a marker
_DAMAGED = "the bytes were changed after they were written"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What a directory states.

    Attributes:
        metadata: As in a checkpoint of one file.
        files: The size in bytes and the CRC-32 of each file, by name.
        sums: A sum over each tensor that lies in the shards, by its name; see ``resume.shard_sums``.
    """

    metadata: Mapping[str, Any]
    files: Mapping[str, tuple[int, int]]
    sums: Mapping[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(size for size, _ in self.files.values())


def is_marked(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads to a local directory with a marker."""
    return not is_remote(path) and os.path.lexists(os.path.join(path, MARKER))


def mark(
    folder: Path, metadata: Mapping[str, Any], sums: Mapping[str, int], open_again: Callable[[Path], BinaryIO]
) -> None:
    """Write the marker of a directory that is complete. The caller makes the directory's names durable.

    ``open_again`` opens a file for reading, best from the disk itself: what is read is what the marker will state.
    """
    files = {}
    for place in sorted(folder.iterdir()):
        with open_again(place) as file:
            files[place.name] = _size_and_checksum(file)
    content = {"metadata": metadata, "files": files, "sums": sums}
    with open(folder / MARKER, "xb") as marker:
        marker.write(_sealed(content))
        marker.flush()
        os.fsync(marker.fileno())


def read(folder: str | os.PathLike[str]) -> Marker:
    """The marker of a directory.

    Raises:
        CheckpointFileError: If it is damaged.
        OSError: If it cannot be read.
    """
    place = os.path.join(folder, MARKER)
    with open_file(place) as file:
        text = file.read(_MOST_BYTES + 1)
    try:
        found = json.loads(text, object_hook=decode)
        content = found["checkpoint"]
        if len(text) > _MOST_BYTES or _sealed(content) != text:
            raise ValueError(_DAMAGED)
        files = {str(name): (int(size), int(checksum)) for name, (size, checksum) in content["files"].items()}
        return Marker(metadata=dict(content["metadata"]), files=files, sums=dict(content["sums"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointFileError(f"{place} is not an intact marker of a checkpoint in shards: {error}.") from error


def problem(folder: str | os.PathLike[str]) -> str | None:
    """What is wrong with the bytes of a directory, or ``None``. Reads all of its files."""
    try:
        return next(_problems(os.fspath(folder), read(folder)), None)
    except CheckpointFileError as error:
        return str(error).rstrip(".")
    except OSError as error:
        return f"cannot be read: {error}"


def _problems(folder: str, marker: Marker) -> Iterator[str]:
    for name in sorted(os.listdir(folder)):
        if name.endswith(SHARD) and name not in marker.files:
            yield f"its file {name} belongs to another save"
    for name, expected in marker.files.items():
        place = os.path.join(folder, name)
        if os.path.basename(name) != name or not os.path.lexists(place):
            yield f"its file {name} is missing"
            continue
        size = os.path.getsize(place)
        if size != expected[0]:
            yield f"its file {name} has {size:,} bytes and not {expected[0]:,}"
            continue
        with open_file(place) as file:
            if _size_and_checksum(file) != expected:
                yield f"the checksum of its file {name} does not match: {_DAMAGED}"


def _sealed(content: Mapping[str, Any]) -> bytes:
    """The bytes of a marker. Its CRC-32 is that of its content."""
    encoded = encode(content)
    return b'{"crc32": "%08x", "checkpoint": %s}' % (zlib.crc32(encoded), encoded)


def _size_and_checksum(file: BinaryIO) -> tuple[int, int]:
    block, size, checksum = memoryview(bytearray(_BLOCK)), 0, 0
    while count := file.readinto(block):  # type: ignore[attr-defined]  # all files passed here have it
        checksum = crc32(block[:count], checksum)
        size += count
    return size, checksum
