"""Loads a checkpoint whose bytes were all read and checked, without running code from it. Imports torch."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, BinaryIO

import torch

from checkpointable._errors import CheckpointFileError
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.storage.files import open_file, read_bytes
from checkpointable.storage.format import safe_load
from checkpointable.storage.format.shard_contents import load_whole
from checkpointable.storage.format.shards import is_marked
from checkpointable.storage.paths import is_remote


def load(info: CheckpointInfo) -> dict[str, Any]:
    """All that a checkpoint holds. Those of a local file are read when they are used; shards are put together.

    Raises:
        CheckpointFileError: If it is damaged.
        NotLoadedError: If a directory of shards holds what no checkpoint holds.
    """
    path = info.path
    problem = info.verify()
    if problem is not None:
        raise CheckpointFileError(f"cannot load {path}: {problem}. Pass the path of an intact one.")
    if is_marked(path):
        loaded = load_whole(os.path.realpath(path), partial(_load, path=path))
    elif is_remote(path):
        file = io.BytesIO(read_bytes(path))
        loaded = _load(file, path)
    else:
        with open_file(path) as opened:
            loaded = safe_load.load(opened, path, "cpu", weights_only=True, mapped=True)
    if not isinstance(loaded, dict) or not isinstance(loaded.get("state_dict"), Mapping):
        raise CheckpointFileError(f"cannot use {path}: it has no weights (state_dict). Pass another checkpoint.")
    return loaded


def _load(file: BinaryIO, path: str) -> Any:
    return safe_load.load(file, path, "cpu", weights_only=True)


def weights(info: CheckpointInfo, prefix: str = "") -> tuple[dict[str, torch.Tensor], int]:
    """The weights whose names begin with a prefix, by the rest of their names; and how many others there are.

    Raises:
        CheckpointFileError: If the checkpoint is damaged, or no name begins so.
        NotLoadedError: If one of them can only be loaded by running code from the file.
    """
    found = info.state_dict()
    others = [str(name) for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise CheckpointFileError(
            f"cannot take the weights of {info.path}: {', '.join(others)} are no tensors. Pass another checkpoint, or"
            " take what you need of torch.load(path, weights_only=True)['state_dict']."
        )
    taken = {name[len(prefix) :]: tensor.detach() for name, tensor in found.items() if name.startswith(prefix)}
    if not taken or "" in taken:
        begins = sorted({f"{name.partition('.')[0]}." for name in found if "." in name})
        raise CheckpointFileError(
            f"no weights of {info.path} have names that begin with {prefix!r} and go on."
            f" Pass another --prefix: {', '.join(begins) or 'none fits, so leave it out'}."
        )
    return taken, len(found) - len(taken)
