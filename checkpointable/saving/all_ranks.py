"""Waits for all ranks before a save: one that hangs is named, long before the time in which a collective gives up."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from checkpointable._errors import SaveError
from checkpointable.policy.position import Position
from checkpointable.saving.on_rank_zero import is_shared

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def meet(trainer: Trainer, seconds: float, position: Position) -> None:
    """Wait until all ranks are here. Collective; other backends than gloo cannot wait for a given time.

    Raises:
        SaveError: If some are not here so many seconds later, of which only rank 0 knows which; or if one has ended.
    """
    if not is_shared(trainer) or not torch.distributed.is_initialized() or torch.distributed.get_backend() != "gloo":
        return
    began = time.monotonic()
    try:
        torch.distributed.monitored_barrier(timeout=timedelta(seconds=seconds), wait_all_ranks=True)
    except RuntimeError as error:
        if time.monotonic() - began < seconds:
            raise SaveError(
                f"another rank has ended before the save after {position}. Its own error says why."
            ) from error
        missing = re.search(r"Ranks? ([\d, ]+) failed", str(error))
        who = f"rank {missing[1].strip()} has" if missing else "another rank has"
        raise SaveError(
            f"{who} not come to the save after {position} within {seconds:g} s. It hangs, or does something that takes"
            " longer there: look at what it does, or pass a larger save_timeout. Nothing was saved here."
        ) from error
