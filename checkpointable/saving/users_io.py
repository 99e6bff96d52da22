"""Saves through the ``CheckpointIO`` of the user, whose files are not ours."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals import trainer as internals

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def write(trainer: Trainer, checkpoint: dict[str, Any], path: str, *, overwrite: bool) -> None:
    """Save a checkpoint; ``FileExistsError`` if the name is taken."""
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(path)
    internals.own_checkpoint_io(trainer).save_checkpoint(checkpoint, path)
