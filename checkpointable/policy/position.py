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
    """Where a run stands. A later position compares as greater.

    Attributes:
        epoch: The epoch, from 0.
        batch: Batches done in this epoch.
        step: Optimizer steps done. In manual optimisation: batches in which at least one optimizer stepped.
        batches: Batches done in all epochs together.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    batches: int = 0

    def __str__(self) -> str:
        return f"epoch {self.epoch}, batch {self.batch}, step {self.step}"
