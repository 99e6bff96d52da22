"""Checkpoints in shards: the strategy reads weights and optimizers by itself, and hands over all the rest.

They are those of strategies that save by ``torch.distributed.checkpoint``, or that load a whole file in their own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checkpointable._errors import ResumeError
from checkpointable.policy.from_script import NUMBERS, Part

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
