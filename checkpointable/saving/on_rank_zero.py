"""What rank 0 alone decides or does, and all ranks know."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from checkpointable._errors import CheckpointableError, SaveError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def on_rank_zero(trainer: Trainer, work: Callable[[], Any], refused: type[CheckpointableError] = SaveError) -> Any:
    """Run ``work`` on rank 0; every rank returns its result, or raises its failure. Collective."""
    result, failure = None, None
    if trainer.is_global_zero:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  # raised below, after the other ranks have it
            failure = error
    result, message = trainer.strategy.broadcast((result, None if failure is None else str(failure)))
    if failure is not None and not isinstance(failure, OSError):
        raise failure
    if message is not None:
        raise refused(message) from failure
    return result
