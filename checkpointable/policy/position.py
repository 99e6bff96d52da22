"""Where a run stands, in our own count, and what has just ended there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Ended(StrEnum):
    """What has just ended at a safe point."""

    BATCH = "batch"
    EPOCH = "epoch"


@dataclass(frozen=True, order=True)
class Position:
    """Where a run stands. A later position compares as greater."""

    epoch: int = 0  # counted from 0
    batch: int = 0  # done in this epoch
    step: int = 0  # optimizer steps done; in manual optimisation: batches in which at least one optimizer stepped
    batches: int = 0  # done in all epochs together

    def __str__(self) -> str:
        return f"epoch {self.epoch}, batch {self.batch}, step {self.step}"
