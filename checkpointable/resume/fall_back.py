"""Resumes from the newest intact checkpoint in the same directory if the given one is damaged, with a warning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from checkpointable._errors import CheckpointableWarning, CheckpointFileError
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import scan
from checkpointable.catalog.select import newest
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.checkpoint_io import DurableCheckpointIO
from checkpointable.storage.paths import parent


class ResumingCheckpointIO(DurableCheckpointIO):
    """A trainer's ``CheckpointIO``. If a ``fit`` is given a damaged file, it warns and reads the newest intact one.

    ``validate``, ``test`` and ``predict`` raise instead: their results are about the file that was named.

    Args:
        trainer: The trainer that reads with it.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer: Callable[[], Trainer | None] = ref(trainer)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointFileError: If it is damaged, and no other file there is intact or this is not a ``fit``.
        """
        try:
            return super().load_checkpoint(path, map_location, weights_only)
        except CheckpointFileError as error:
            trainer = self._trainer()
            instead = None if trainer is None else _beside(trainer, str(path))
            if trainer is None or instead is None:
                raise
            problem = str(error).splitlines()[0]
            rank_zero_warn(
                f"{problem} Resuming from {instead.path} ({instead.at}), the newest intact checkpoint there.",
                category=CheckpointableWarning,
            )
            internals.set_resume_path(trainer, instead.path)
            return super().load_checkpoint(instead.path, map_location, weights_only)

    def __getstate__(self) -> dict[str, Any]:
        """Without the trainer: a copy in another process raises for a damaged file."""
        return {"_trainer": _no_trainer}


def _no_trainer() -> None:
    """Stands in for a reference to a trainer that is gone."""


def _beside(trainer: Trainer, path: str) -> CheckpointInfo | None:
    if not internals.is_fitting(trainer) or not internals.is_resuming(trainer):
        return None
    return newest(scan(parent(path))).info
