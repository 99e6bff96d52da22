"""A checkpoint of either format: one file, or a directory of shards."""

from __future__ import annotations

import os
from typing import Any

from checkpointable.storage.files import open_file
from checkpointable.storage.format import archive, shards, verify


def problem(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with the bytes of a checkpoint, local or remote, or ``None``. Reads all of it."""
    return shards.problem(path) if shards.is_marked(path) else verify.problem(path)


def read_metadata(path: str | os.PathLike[str], *, size: int | None = None) -> tuple[dict[str, Any], int]:
    """The metadata of a checkpoint, and its size in bytes, without reading a tensor.

    ``size`` is that of a remote file, if it is known. Then reading it takes one request, where its end holds it all.

    Raises:
        CheckpointFileError: If it is damaged, or not a checkpoint of this library.
        OSError: If it cannot be read.
    """
    if shards.is_marked(path):
        marker = shards.read(path)
        return dict(marker.metadata), marker.size
    with open_file(path, size=size) as file:
        return archive.read_metadata_in(file, os.fspath(path)), file.seek(0, os.SEEK_END)


def read_history(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The history of its run in a checkpoint; ``None`` if it has none. It raises what ``read_metadata`` does."""
    with open_file(_rest(path)) as file:
        return archive.read_history_in(file, os.fspath(path))


def history_text(path: str | os.PathLike[str]) -> str | None:
    """The same as it was written, for a file that is written anew."""
    with open_file(_rest(path)) as file:
        return archive.history_text_in(file, os.fspath(path))


def _rest(path: str | os.PathLike[str]) -> str:
    """The file that has all but shards."""
    return os.path.join(path, shards.REST) if shards.is_marked(path) else os.fspath(path)
