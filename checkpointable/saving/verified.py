"""Verifies a checkpoint that a strategy reads by itself, past the ``CheckpointIO``: nothing of it is opened before."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from checkpointable._errors import CheckpointFileError, ResumeError
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import scan
from checkpointable.catalog.select import newest
from checkpointable.lightning_internals import model_parallel
from checkpointable.lightning_internals import trainer as internals
from checkpointable.resume.reading import resume_from
from checkpointable.saving.on_rank_zero import on_rank_zero
from checkpointable.storage.format import checkpoint
from checkpointable.storage.format.shards import is_marked
from checkpointable.storage.paths import parent

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def load(trainer: Trainer, given: str | None, read: Callable[[str | None], None]) -> None:
    """Read the checkpoint that ``validate``, ``test`` or ``predict`` is given. Collective."""
    read_by_strategy(trainer, intact(trainer, given), read)


def read_by_strategy(trainer: Trainer, path: str | None, read: Callable[[str | None], None]) -> None:
    """Read a checkpoint. Collective.

    Raises:
        ResumeError: If the strategy reads it by itself, and cannot: torch's own error is no ``Exception``.
    """
    if path is None or not model_parallel.parts_model(trainer):
        read(path)
        return
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        read(path)
    except CheckpointException as error:
        rank, (failure, _) = next(iter(error.failures.items()))
        raise ResumeError(
            f"{type(trainer.strategy).__name__} cannot read {path}: {failure} (rank {rank}). It was saved for another"
            " model or other optimizers, or before each of their parameters had a state."
        ) from error


def intact(trainer: Trainer, path: str | None) -> str | None:
    """The checkpoint to read: this one, or in a ``fit`` the newest intact one beside it if it is damaged. Collective.

    What cannot be verified is returned as it is: a directory of shards without a marker of ours, a path where nothing
    is. So is every path if the strategy reads through the ``CheckpointIO``, which verifies.

    Raises:
        CheckpointFileError: On all ranks, if it is damaged and no other can be used.
    """
    if path is None or not model_parallel.parts_model(trainer) or not (os.path.isfile(path) or is_marked(path)):
        return path
    problem, instead = on_rank_zero(trainer, lambda: _look(path), refused=CheckpointFileError)
    if problem is None:
        return path
    damaged = f"{path} is damaged: {problem}."
    if instead is None or not internals.is_fitting(trainer):
        raise CheckpointFileError(f"{damaged} Use another checkpoint: checkpointable.latest finds the newest intact.")
    resume_from(trainer, instead, damaged)
    return str(instead.path)


def _look(path: str) -> tuple[str | None, CheckpointInfo | None]:
    """What is wrong with a checkpoint, and what to read instead."""
    problem = checkpoint.problem(path)
    return problem, None if problem is None else newest(scan(parent(os.path.realpath(path)))).info
