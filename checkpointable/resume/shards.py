"""Checkpoints in shards: the strategy reads weights and optimizers by itself, and hands over all the rest.

They are those of strategies that save by ``torch.distributed.checkpoint``, or that load a whole file in their own way.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from checkpointable._errors import ResumeError
from checkpointable.lightning_internals import model_parallel
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.from_script import NUMBERS, Part
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume import shard_sums
from checkpointable.storage.format import shards
from checkpointable.storage.format.same import same

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_OF_OPTIMIZERS = {*NUMBERS, Part.OPTIMIZERS, Part.LR_SCHEDULERS}


def holds_weights_only(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has nothing to resume from. Where optimizers lie in shards, it still has schedulers."""
    return checkpoint.keys().isdisjoint({"optimizer_states", "lr_schedulers"})


def in_shards(loaded: Mapping[str, Any]) -> bool:
    """Whether the strategy has read weights or optimizers of this checkpoint by itself."""
    return "state_dict" not in loaded or "optimizer_states" not in loaded


def refuse_parts(path: object, loaded: Mapping[str, Any], parts: frozenset[Part]) -> None:
    """Refuse to take from the script what the strategy has taken from the file already.

    Raises:
        ResumeError: If one of these parts belongs to the optimizers, and they lie in shards.
    """
    asked = sorted(part.value for part in parts & _OF_OPTIMIZERS)
    if asked and in_shards(loaded):
        raise ResumeError(
            f"cannot resume from {path} with from_script={asked}: it is in shards, from which the strategy reads all of"
            " the optimizers. Leave these parts out of from_script."
        )


def read_back(trainer: Trainer) -> Verdict:
    """Whether the strategy has read weights and optimizers as they are in the checkpoint. Collective."""
    path, part = internals.resume_path(trainer), "weights, optimizers"
    if path is not None and model_parallel.parts_model(trainer):
        if shards.is_marked(path):
            return shard_sums.judged(trainer, shards.read(path).sums)
        if os.path.isfile(path) and not model_parallel.saves_in_shards(trainer):
            return _whole_file(trainer, path)
    return Verdict(part, Level.APPROXIMATE, "read by the strategy, which does not verify them")


def _whole_file(trainer: Trainer, path: str) -> Verdict:
    """Whether the weights are those of a file. Rank 0, which has them whole, judges for all. Collective."""
    now = internals.module_state(trainer)
    if not trainer.is_global_zero:
        return Verdict("weights", Level.EXACT, "judged by rank 0")
    try:
        saved = torch.load(path, mmap=True, map_location="cpu", weights_only=True)["state_dict"]
    except pickle.UnpicklingError:  # the user has let Lightning load what needs code of the file
        return Verdict("weights", Level.APPROXIMATE, "read from a file that cannot be read again without its code")
    wrong = sorted(name for name in saved.keys() | now.keys() if not same(saved.get(name), now.get(name)))
    if wrong:
        return Verdict("weights", Level.APPROXIMATE, f"{', '.join(wrong[:3])}: not as in the file after loading")
    return Verdict("weights", Level.EXACT, "read back as in the file")
