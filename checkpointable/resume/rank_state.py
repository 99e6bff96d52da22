"""Captures what each process needs to resume the same run, and collects it from all ranks."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer

from checkpointable.lightning_internals import logged
from checkpointable.lightning_internals import trainer as internals
from checkpointable.resume import loaders, rng
from checkpointable.resume.state import RankState


def capture(trainer: Trainer, *, consumed_only: bool = True) -> RankState:
    """The state of this rank; ``consumed_only``: with the positions in the training data at the last safe point."""
    return RankState(
        random=rng.capture(),
        seed=internals.global_seed(),
        training=loaders.states(internals.training_loader(trainer), consumed_only=consumed_only),
        validation=loaders.states(internals.validation_loader(trainer), consumed_only=False),
        logged=logged.capture(trainer),
        metrics=logged.capture_metrics(trainer.lightning_module),
    )


def gather(trainer: Trainer, *, consumed_only: bool) -> list[RankState]:
    """The states of all ranks, by rank. Collective: every rank calls it."""
    mine = capture(trainer, consumed_only=consumed_only)
    if trainer.world_size == 1:
        return [mine]
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, mine)
    return everyone
