"""The directory of a fit: which one it is, and what is there before anything is trained."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import infos
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.options import Options
from checkpointable.storage.local import store_at
from checkpointable.storage.paths import absolute, parent
from checkpointable.storage.store import Store

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def with_absolute_dirpath(options: Options) -> Options:
    """The same arguments, with a directory that does not depend on the working directory any more."""
    return options if options.dirpath is None else replace(options, dirpath=absolute(options.dirpath))


def look(
    trainer: Trainer, options: Options, resumed_from: str | None
) -> tuple[Store, str | None, list[CheckpointInfo]]:
    """On rank 0: the directory, the file resumed from, and the checkpoints in both directories."""
    if options.dirpath is not None:
        directory = os.fspath(options.dirpath)
    elif resumed_from is not None:
        directory = parent(resumed_from)
    else:
        directory = internals.checkpoint_directory(trainer)
    store = store_at(directory)
    below = "/" in options.filename + options.best_filename
    store.prepare(below=below)
    if resumed_from is None:
        return store, None, []
    directories = {store.directory, parent(resumed_from)}
    return store, resumed_from, [info for directory in directories for info in infos(directory, below=below)]
