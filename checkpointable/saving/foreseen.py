"""Which checkpoint a fit will resume from, before Lightning reads it and before the ranks can talk. Nothing is changed.

It is found by what files state about themselves. If it proves to be damaged when it is read, another one is resumed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checkpointable.catalog.info import CheckpointInfo, FileMetadata, metadata_of
from checkpointable.catalog.scan import Found, Unreadable, in_order, infos, inspect, scan
from checkpointable.catalog.select import newest
from checkpointable.lightning_internals import connector, slurm
from checkpointable.policy.options import Options
from checkpointable.saving import auto_resume
from checkpointable.saving.directory import saved_in
from checkpointable.storage.paths import is_remote, normalize_path, parent

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


@dataclass(frozen=True)
class Foreseen:
    """A checkpoint, and what it states about itself."""

    path: str
    metadata: FileMetadata


def find(trainer: Trainer, options: Options) -> Foreseen | None:
    """The checkpoint that will be resumed; ``None`` if there is none, not one of this library, or it cannot be read."""
    try:
        info = _info(trainer, options)
        metadata = None if info is None or info.weights_only else metadata_of(info.path)
    except OSError:  # the fit itself reads it next, and says what is wrong
        return None
    return None if info is None or metadata is None else Foreseen(info.path, metadata)


def _info(trainer: Trainer, options: Options) -> CheckpointInfo | None:
    given = connector.given_path(trainer)
    if given is None or slurm.is_own_save(trainer, given):
        given = auto_resume.foresee(options, trainer) or given
    if given is None:
        return None
    path = normalize_path(given)
    path = path if is_remote(path) else os.path.realpath(path)
    found = inspect(path)
    if isinstance(found, Unreadable):  # the newest intact one there is read in its place
        return newest(scan(parent(path))).info
    return found


def is_newest(file: Foreseen, options: Options) -> bool:
    """Whether no newer checkpoint of its run can be resumed, in its directory and in those of this fit."""
    here = file.metadata
    places = dict.fromkeys((saved_in(file.path, here.base_name), *options.places))
    below = here.base_name is not None and "/" in here.base_name
    newer = [
        info
        for place in places
        for info in infos(place, below=below)
        if info.run_id == here.run_id
        and not info.weights_only
        and (info.generation, info.batches) > (here.lineage.generation, here.batches)
    ]
    return newest(Found(infos=in_order(newer))).info is None
