"""Lightning's door to storage: every file that the trainer writes or reads goes through the commit and its checks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol
from lightning.pytorch.plugins.io import TorchCheckpointIO

from checkpointable._errors import CheckpointFileError
from checkpointable.storage import archive, local
from checkpointable.storage.snapshot import Snapshot

KEY = "checkpointable"


class DurableCheckpointIO(TorchCheckpointIO):
    """Lightning's default ``CheckpointIO``, with durable writes, metadata in the file, and damage found before loading.

    Paths on other file systems than the local one are Lightning's, unchanged.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint durably, over any file of that name.

        Raises:
            TypeError: If ``storage_options`` is given, as in Lightning.
            OSError: If the file system refuses.
        """
        if storage_options is not None or not _is_local(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        write_checkpoint(checkpoint, Path(LocalFileSystem._strip_protocol(str(path))), overwrite=True)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointFileError: If the file is not a checkpoint, or its bytes are damaged.
        """
        place = LocalFileSystem._strip_protocol(str(path)) if _is_local(path) else ""
        wrong = archive.problem(place) if os.path.isfile(place) else None
        if wrong is not None and _is_archive(place):
            raise CheckpointFileError(_cannot_load(place, wrong))
        try:
            return super().load_checkpoint(path, map_location, weights_only)
        except Exception as error:  # what is no archive may be torch's old format, or fail in any way
            if wrong is None:
                raise
            raise CheckpointFileError(_cannot_load(place, wrong)) from error


def write_checkpoint(checkpoint: dict[str, Any], path: Path, *, overwrite: bool) -> None:
    """Commit a checkpoint, with the metadata it carries as a member of its own.

    Raises:
        FileExistsError: If the name is taken and ``overwrite`` is false.
        OSError: If the file system refuses.
    """
    local.write(Snapshot(checkpoint, checkpoint.get(KEY, {}).get("metadata")), path, overwrite=overwrite)


def _is_local(path: str | Path) -> bool:
    return bool(get_protocol(str(path)) == "file")


def _is_archive(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def _cannot_load(path: str, wrong: str) -> str:
    return (
        f"cannot load {path}: {wrong}.\n"
        f"Go on from another file: checkpointable.latest({os.path.dirname(path)!r}) gives the newest that is whole."
    )
