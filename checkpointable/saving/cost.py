"""What a save has cost: for the history of the run, and for the loggers if the user asks for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from checkpointable.lightning_internals import loops
from checkpointable.policy.history import SavedPoint
from checkpointable.policy.reasons import kind_of
from checkpointable.saving.history import RunHistory
from checkpointable.saving.save_task import SaveResult
from checkpointable.saving.saver import Saver

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def note(trainer: Trainer, result: SaveResult, saver: Saver, history: RunHistory, *, logs: bool) -> None:
    """On rank 0, after the result of a save is collected: note its cost; ``logs``: also log it.

    It goes straight to the loggers. What a module logs becomes part of what callbacks and schedulers see.
    """
    if result.path is None or not trainer.is_global_zero:
        return
    request = result.request
    saved = SavedPoint(
        position=request.position,
        kind=kind_of(request.reasons),
        name=os.path.basename(result.path),
        score=request.score,
        created=history.captured_at,
        blocked_seconds=saver.blocked_seconds,
        write_seconds=saver.busy_seconds,
        size_bytes=saver.size_bytes,
    )
    history.note_saved(saved)
    if logs:
        loops.log_at_present_step(
            trainer,
            {
                "save/blocked_seconds": saved.blocked_seconds,
                "save/write_seconds": saved.write_seconds,
                **({} if saved.size_bytes is None else {"save/size_bytes": float(saved.size_bytes)}),
            },
        )
