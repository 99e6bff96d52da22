"""The snapshot that a save takes: what is copied at once, and what while training continues."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from checkpointable._errors import CheckpointableWarning
from checkpointable.policy.options import Options
from checkpointable.policy.reasons import PERIODIC
from checkpointable.saving.save_task import SaveRequest
from checkpointable.saving.steps import changed_only_by_steps
from checkpointable.storage.staging.buffer import StagingBuffer
from checkpointable.storage.staging.snapshot import Snapshot

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def staged(
    trainer: Trainer,
    checkpoint: dict[str, Any],
    request: SaveRequest,
    options: Options,
    buffer: StagingBuffer,
    *,
    only_steps_change: bool | None,
) -> Snapshot:
    """The present state. What may be copied while training continues is left to the background thread.

    ``only_steps_change`` says whether optimizer steps alone change parameters; ``None`` if that is still to be watched.
    """
    if not options.async_save:
        return Snapshot.of(checkpoint)
    watched = only_steps_change is None
    overlaps = watched or (only_steps_change and request.reasons <= PERIODIC)
    later = changed_only_by_steps(trainer) if overlaps else ()
    try:
        return Snapshot.of(checkpoint, buffer, later, watched=watched)
    except MemoryError as error:
        warnings.warn(
            f"{error}, so training waits for this save. Set async_save=False, or leave more memory free.",
            CheckpointableWarning,
            stacklevel=2,
        )
        return Snapshot.of(checkpoint)
