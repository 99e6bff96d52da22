"""Loads the weights of a checkpoint once all of its bytes are verified: torch alone would load damaged ones.

Torch is imported when it is needed, Lightning not at all.
"""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, Protocol, TypeVar

from checkpointable._errors import CheckpointFileError, NotLoadedError
from checkpointable.storage import files
from checkpointable.storage.format import shards, verify
from checkpointable.storage.paths import is_remote

_Loaded = TypeVar("_Loaded", covariant=True)


class Loadable(Protocol[_Loaded]):
    """A class of Lightning, of a module or a data module."""

    def load_from_checkpoint(self, checkpoint_path: Any, **kwargs: Any) -> _Loaded:
        """Make one of a checkpoint."""


def state_dict(path: str) -> dict[str, Any]:
    """What ``CheckpointInfo.state_dict`` returns."""
    if shards.is_marked(path):
        return _of_shards(path)
    from checkpointable.storage.format import placeholder, safe_load

    with _opened_intact(path) as file:
        loaded = safe_load.load(file, path, "cpu", weights_only=True, mapped=not is_remote(path))
    if not isinstance(loaded, dict) or not isinstance(loaded.get("state_dict"), dict):
        raise CheckpointFileError(f"cannot load the weights of {path}: it has no state_dict. {_CURE}")
    weights: dict[str, Any] = loaded["state_dict"]
    unknown = [name for name, value in weights.items() if isinstance(value, placeholder.Placeholder)]
    if unknown:
        raise NotLoadedError(
            f"cannot load the weights of {path} without running code from it: {', '.join(unknown)}. If you trust the"
            " file, use torch.load(path, weights_only=False)['state_dict']."
        )
    return weights


def load(path: str, kind: Loadable[_Loaded], **kwargs: Any) -> _Loaded:
    """What ``CheckpointInfo.load`` returns."""
    if shards.is_marked(path):
        return kind.load_from_checkpoint(_as_one_file(path, kwargs.get("weights_only")), **kwargs)
    with _opened_intact(path) as file:
        return kind.load_from_checkpoint(file if is_remote(path) else path, **kwargs)


def _opened_intact(path: str) -> BinaryIO:
    """A checkpoint file whose bytes were all read and checked. A remote one is then in memory."""
    file = io.BytesIO(files.read_bytes(path)) if is_remote(path) else files.open_file(path)
    try:
        _require_intact(path, verify.problem_in(file))
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _of_shards(path: str) -> dict[str, Any]:
    _require_intact(path, shards.problem(path))
    from checkpointable.storage.format import shard_contents

    return dict(shard_contents.load_weights(os.path.realpath(path)))


def _as_one_file(path: str, weights_only: bool | None) -> BinaryIO:
    """A checkpoint in shards as a file in memory, without the optimizers."""
    weights = _of_shards(path)
    import torch

    rest = torch.load(os.path.join(path, shards.REST), map_location="cpu", weights_only=weights_only)
    file = io.BytesIO()
    torch.save({**rest, "state_dict": weights}, file)
    file.seek(0)
    return file


def _require_intact(path: str, problem: str | None) -> None:
    if problem is not None:
        raise CheckpointFileError(f"cannot load {path}: {problem}. {_CURE}")


_CURE = "Choose another one: latest() and best() of Checkpoints return intact ones."
