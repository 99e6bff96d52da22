"""Resuming from a file that turns out to be damaged: the newest whole one beside it takes its place, with a warning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from checkpointable._errors import CheckpointableWarning, CheckpointFileError
from checkpointable.catalog import find
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.checkpoint_io import DurableCheckpointIO
from checkpointable.storage.paths import parent


class ResumingCheckpointIO(DurableCheckpointIO):
    """A trainer's ``CheckpointIO``: a ``fit`` that is to go on from a damaged file goes on from the newest whole one.

    Only a ``fit`` does: whoever tests a file wants to know of that one.

    Args:
        trainer: Whose it is.
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
            CheckpointFileError: If it is damaged, and nothing beside it is whole, or this is no ``fit``.
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
                f"{problem} Going on from {instead.path} ({instead.at}), the newest file there that is whole.",
                category=CheckpointableWarning,
            )
            internals.set_resume_path(trainer, instead.path)
            return super().load_checkpoint(instead.path, map_location, weights_only)

    def __getstate__(self) -> dict[str, Any]:
        """In another process it falls back on nothing."""
        return {"_trainer": _nobody}


def _nobody() -> None:
    """No trainer."""


def _beside(trainer: Trainer, path: str) -> CheckpointInfo | None:
    if not internals.is_fitting(trainer) or not internals.is_resuming(trainer):
        return None
    return find.newest(find.scan(parent(path))).info
