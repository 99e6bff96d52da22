"""What rank 0 alone decides or does, and all ranks know; also where the others have left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from checkpointable._errors import CheckpointableError, SaveError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


_IS_ALONE = ContextVar("_IS_ALONE", default=False)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let rank 0 save without the others, who have left or are about to."""
    before = _IS_ALONE.set(True)
    try:
        yield
    finally:
        _IS_ALONE.reset(before)


def is_shared(trainer: Trainer) -> bool:
    """Whether other ranks take part."""
    return trainer.world_size > 1 and not _IS_ALONE.get()


def on_rank_zero(trainer: Trainer, work: Callable[[], Any], refused: type[CheckpointableError] = SaveError) -> Any:
    """Run ``work`` on rank 0; every rank returns its result, or raises its failure. Collective."""
    result, failure = None, None
    if trainer.is_global_zero:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  # raised below, after the other ranks have it
            failure = error
    message = None if failure is None else str(failure)
    if is_shared(trainer):
        result, message = trainer.strategy.broadcast((result, message))
    if failure is not None and not isinstance(failure, OSError):
        raise failure
    if message is not None:
        raise refused(message) from failure
    return result
