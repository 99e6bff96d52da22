"""The ``CheckpointIO`` of a trainer: each file it writes is committed durably, and each file it reads is verified."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from fsspec.implementations.local import LocalFileSystem

from checkpointable._errors import CheckpointFileError
from checkpointable.lightning_internals.tree import Mixin
from checkpointable.storage.files import open_file, read_bytes
from checkpointable.storage.format import read_once, safe_load, verify
from checkpointable.storage.format.shards import is_marked
from checkpointable.storage.local import store_at
from checkpointable.storage.paths import is_remote, parent
from checkpointable.storage.staging.snapshot import Snapshot
from checkpointable.storage.store import TAKING_A_NAME

if TYPE_CHECKING:
    from lightning.pytorch.plugins.io import TorchCheckpointIO
else:  # at run time, the base is that class in the tree of the trainer
    TorchCheckpointIO = object


def _stay(storage: Any, _: str) -> Any:
    """A ``map_location``: every tensor is loaded onto the CPU."""
    return storage


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
        place = _place(path)
        if storage_options is not None or _is_left_to_lightning(place):
            super().save_checkpoint(checkpoint, path, storage_options=storage_options)
        else:
            content = Snapshot.of(checkpoint)
            with TAKING_A_NAME:
                store_at(parent(place)).write(content, place, overwrite=True)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = _stay,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint. From a URL, fetch it once into memory.

        Unless ``weights_only=False``, no code of the file runs, and placeholders stand for the objects that need it.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointFileError: If the file is not a checkpoint, or its bytes are damaged, or torch refuses it.
            RemoteError: If a remote file system does not answer.
        """
        place = _place(path)
        if _is_left_to_lightning(place):
            return super().load_checkpoint(path, map_location, weights_only)
        if is_marked(place):
            raise CheckpointFileError(
                f"{place} is a checkpoint in shards, which only ModelParallelStrategy reads. Use that strategy, or make"
                f" one file of it: checkpointable.to_single_file({place!r})."
            )
        with _open(place) as file:
            checkpoint = _load(file, place, map_location, weights_only)
        if not isinstance(checkpoint, dict):
            raise CheckpointFileError(_cannot_load(place, f"it holds {type(checkpoint).__name__}, no checkpoint"))
        return checkpoint


def _load(file: BinaryIO, place: str, map_location: Any, weights_only: bool | None) -> Any:
    """What an open file holds. One of torch's old format can't be verified: it is looked at where torch refuses it."""
    is_archive = file.read(2) == b"PK"
    wrong = None
    try:
        if is_archive and map_location is _stay and _runs_no_code(weights_only) and not is_remote(place):
            loaded = read_once.load(file, place, weights_only=weights_only)
            if loaded is not None and loaded.problem is None:
                return loaded.content
        wrong = verify.problem_in(file)
        file.seek(0)
        if is_archive and wrong is None and weights_only is not False:
            return safe_load.load(file, place, map_location, weights_only=weights_only)
        if not is_archive or wrong is None:
            return torch.load(file, map_location=map_location, weights_only=weights_only)
    except Exception as error:  # a damaged file of the old format can raise anything
        wrong = wrong or verify.problem_in(file)
        if wrong is None and weights_only is not False and _is_refusal(error):
            wrong = f"its bytes are as they were written, but torch refuses it: {type(error).__name__}: {error}"
        if wrong is None:
            raise
        raise CheckpointFileError(_cannot_load(place, wrong)) from error
    raise CheckpointFileError(_cannot_load(place, wrong))


def _runs_no_code(weights_only: bool | None) -> bool:
    """Whether torch, too, runs no code of a file: where it is not told, an environment variable may let it."""
    return weights_only is True or (weights_only is None and "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ)


def _is_refusal(error: Exception) -> bool:
    """Whether torch cannot read the content, whoever tries. Any other ``RuntimeError`` may be a lack of memory."""
    kinds = (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError)
    return isinstance(error, kinds) or str(error).startswith("PytorchStreamReader")


def _place(path: str | Path) -> str:
    text = str(path)
    return text if is_remote(text) else str(LocalFileSystem._strip_protocol(text))


def _is_left_to_lightning(place: str) -> bool:
    return is_remote(place) and (place.startswith("http") or "::" in place.partition("://")[0])


def _open(place: str) -> BinaryIO:
    try:
        return io.BytesIO(read_bytes(place)) if is_remote(place) else open_file(place)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Checkpoint file not found: {place}. checkpointable.latest({parent(place)!r}) returns the newest that is"
            " there, or None."
        ) from error


def _cannot_load(path: str, wrong: str) -> str:
    return (
        f"cannot load {path}: {wrong}.\n"
        f"Resume from another file: checkpointable.latest({parent(path)!r}) returns the newest that is intact."
    )
