"""Reads the file that a fit resumes from, or the newest intact one where that is damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from lightning_utilities.core.rank_zero import rank_zero_warn

from checkpointable._errors import CheckpointableWarning, CheckpointFileError
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import scan
from checkpointable.catalog.select import newest
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.checkpoint_io import DurableCheckpointIO
from checkpointable.resume.needed import require_loaded
from checkpointable.storage.format.shards import is_marked
from checkpointable.storage.paths import parent

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def resume_from(trainer: Trainer, instead: CheckpointInfo, problem: str) -> None:
    """Let the fit resume from another checkpoint than it was given, and say so. ``problem``: a sentence."""
    rank_zero_warn(
        f"{problem} Resuming from {instead.path} ({instead.at}), the newest intact checkpoint there.",
        category=CheckpointableWarning,
    )
    internals.set_resume_path(trainer, instead.path)


class ResumingCheckpointIO(DurableCheckpointIO):
    """A trainer's ``CheckpointIO``. If a ``fit`` is given a damaged file, it warns and reads the newest intact one.

    ``validate``, ``test`` and ``predict`` raise instead: their results are about the file that was named.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer: Callable[[], Trainer | None] = ref(trainer)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint; the other arguments are those of ``DurableCheckpointIO.load_checkpoint``.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointFileError: If it is damaged, and no other file there is intact or this is not a ``fit``.
            NotLoadedError: If what the trainer restores can only be loaded with ``weights_only=False``.
        """
        loaded, trainer = self._intact(path, *args, **kwargs), self._trainer()
        if trainer is not None:
            require_loaded(trainer, loaded, str(path))
        return loaded

    def _intact(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return super().load_checkpoint(path, *args, **kwargs)
        except CheckpointFileError as error:
            trainer, first = self._trainer(), error
        fits = trainer is not None and internals.is_fitting(trainer) and internals.is_resuming(trainer)
        if trainer is None or not fits or is_marked(path):  # a directory of shards, which is not damaged
            raise first
        refused, found = {os.path.realpath(path)}, scan(parent(str(path)))
        while True:
            others = [it for it in found.infos if os.path.realpath(it.path) not in refused and not is_marked(it.path)]
            instead = newest(replace(found, infos=others)).info
            if instead is None:
                raise first
            try:
                loaded = super().load_checkpoint(instead.path, *args, **kwargs)
            except CheckpointFileError:  # its bytes are as they were written, and torch refuses it
                refused.add(os.path.realpath(instead.path))
            else:
                resume_from(trainer, instead, str(first).splitlines()[0])
                return loaded

    def __getstate__(self) -> dict[str, Any]:
        """Without the trainer: a copy in another process raises for a damaged file."""
        return {"_trainer": type(None)}  # called as a dead reference is, it gives None
