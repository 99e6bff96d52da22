"""The ``CheckpointIO`` of a trainer: each file it writes is committed durably, and each file it reads is verified."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from fsspec.implementations.local import LocalFileSystem

from checkpointable._errors import CheckpointFileError
from checkpointable.lightning_internals.tree import Mixin
from checkpointable.storage import local
from checkpointable.storage.files import read_bytes
from checkpointable.storage.format import archive
from checkpointable.storage.paths import is_remote, parent
from checkpointable.storage.remote import RemoteStore
from checkpointable.storage.staging.snapshot import Snapshot

if TYPE_CHECKING:
    from lightning.pytorch.plugins.io import TorchCheckpointIO
else:  # at run time, the base is that class in the tree of the trainer
    TorchCheckpointIO = object

KEY = "checkpointable"


class DurableCheckpointIO(Mixin, TorchCheckpointIO):
    """Put before Lightning's default ``CheckpointIO``: writes durably, with metadata in the file, and loads no damage.

    This holds for paths and URLs. Web addresses (``http://``) and chained URLs (``::``) are left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint durably, over any file of that name. To a URL, upload it and verify the upload.

        Raises:
            TypeError: If ``storage_options`` is given, as in Lightning.
            SaveError: If a remote file system refuses it, after several tries.
            OSError: If the file system refuses.
        """
        text = str(path)
        if storage_options is not None or _is_left_to_lightning(text):
            super().save_checkpoint(checkpoint, path, storage_options)
        elif is_remote(text):
            RemoteStore(parent(text)).write(_content(checkpoint), text, overwrite=True)
        else:
            write_checkpoint(checkpoint, Path(LocalFileSystem._strip_protocol(text)), overwrite=True)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint. From a URL, fetch it once into memory.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointFileError: If the file is not a checkpoint, or its bytes are damaged.
            RemoteError: If a remote file system does not answer.
        """
        text = str(path)
        if is_remote(text) and not _is_left_to_lightning(text):
            file = io.BytesIO(read_bytes(text))
            start, wrong = file.read(2), archive.problem_in(file)
            file.seek(0)
            read = partial(torch.load, file, map_location=map_location, weights_only=weights_only)
            return _checked(read, text, wrong, start)
        place = "" if is_remote(text) else LocalFileSystem._strip_protocol(text)
        wrong = archive.problem(place) if os.path.isfile(place) else None
        start = b"" if wrong is None else _start(place)
        return _checked(partial(super().load_checkpoint, path, map_location, weights_only), place, wrong, start)


def write_checkpoint(checkpoint: dict[str, Any], path: Path, *, overwrite: bool) -> None:
    """Commit a checkpoint, with its metadata as a member of its own.

    Raises:
        FileExistsError: If the name is taken and ``overwrite`` is false.
        OSError: If the file system refuses.
    """
    local.write(_content(checkpoint), path, overwrite=overwrite)


def _content(checkpoint: dict[str, Any]) -> Snapshot:
    return Snapshot(checkpoint, checkpoint.get(KEY, {}).get("metadata"))


def _is_left_to_lightning(path: str) -> bool:
    return path.startswith("http") or "::" in path.partition("://")[0]


def _checked(read: Callable[[], dict[str, Any]], path: str, wrong: str | None, start: bytes) -> dict[str, Any]:
    """Return what ``read`` does. A damaged archive is refused unread; other files may be in torch's old format."""
    if wrong is not None and start == b"PK":
        raise CheckpointFileError(_cannot_load(path, wrong))
    try:
        return read()
    except Exception as error:  # a damaged file of the old format can raise anything
        if wrong is None:
            raise
        raise CheckpointFileError(_cannot_load(path, wrong)) from error


def _start(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(2)


def _cannot_load(path: str, wrong: str) -> str:
    return (
        f"cannot load {path}: {wrong}.\n"
        f"Resume from another file: checkpointable.latest({parent(path)!r}) returns the newest that is intact."
    )
