"""Makes one file of a checkpoint in shards, which every strategy and ``load_from_checkpoint`` read."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from checkpointable._errors import CheckpointableWarning, CheckpointFileError
from checkpointable.catalog.info import FileMetadata
from checkpointable.policy.names import HISTORY_KEY, KEY, SUFFIX
from checkpointable.policy.reasons import Reason
from checkpointable.storage import files
from checkpointable.storage.format import shards
from checkpointable.storage.format.checkpoint import history_text
from checkpointable.storage.format.shards import REST
from checkpointable.storage.local import store_at
from checkpointable.storage.paths import absolute, parent
from checkpointable.storage.staging.snapshot import Snapshot


def to_single_file(path: str | os.PathLike[str], to: str | os.PathLike[str] | None = None) -> str:
    """Make one checkpoint file of a checkpoint in shards, which stays as it is.

    The weights and the optimizers are put together in memory, on the CPU, by ``torch.distributed.checkpoint``. A run
    resumes from the file with any strategy.

    Args:
        path: The directory, or a link to it.
        to: The file, a local path or a URL; by default beside the directory, with ``-single`` after its name. A file
            of that name is never overwritten.

    Returns:
        The path of the file.

    Raises:
        CheckpointFileError: If it is not a checkpoint in shards, or is damaged.
        FileExistsError: If there is a file of that name.
        SaveError: If the file is damaged after it was written.
        OSError: If the file system refuses.
    """
    place = os.path.realpath(path)
    if not os.path.isfile(os.path.join(place, REST)):
        raise CheckpointFileError(
            f"{path} is not a checkpoint in shards: there is no {REST} in it. Pass the directory of one,"
            " as checkpointable.latest(...) returns it."
        )
    if not shards.is_marked(place):
        warnings.warn(f"{place} has no marker of checkpointable: not verified.", CheckpointableWarning, stacklevel=2)
    elif (problem := shards.problem(place)) is not None:
        raise CheckpointFileError(f"{place} is damaged: {problem}. Use another checkpoint.")
    target = f"{place.removesuffix(SUFFIX)}-single{SUFFIX}" if to is None else absolute(to)
    if files.is_there(target):
        raise FileExistsError(f"{target} is there already, and is not written over. Pass another name as to=...")
    from checkpointable.storage.format.shard_contents import load_whole  # which imports much of torch

    contents = load_whole(place, partial(torch.load, map_location="cpu", weights_only=True))
    content = Snapshot.of(_as_made_by_hand(contents, target, history_text(os.path.join(place, REST))))
    store_at(parent(target)).write(content, target, overwrite=False)
    return target


def _as_made_by_hand(checkpoint: dict[str, Any], path: str, history: str | None) -> dict[str, Any]:
    """The checkpoint as one that the user has saved: no run deletes it, and it is not the best a second time."""
    if KEY not in checkpoint:
        return checkpoint
    metadata = FileMetadata.from_dict(checkpoint[KEY]["metadata"], path)
    made = replace(metadata, kind=Reason.MANUAL, reasons=(Reason.MANUAL,), score=None, base_name=None)
    return {**checkpoint, KEY: {**checkpoint[KEY], "metadata": made.to_dict(), HISTORY_KEY: history}}
