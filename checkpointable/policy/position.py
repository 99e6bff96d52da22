"""Where a run stands, in our own count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Position:
    """Where a run stands; a later position compares as greater.

    Attributes:
        epoch: The epoch, from 0.
        batch: Batches done in this epoch.
        step: Optimizer steps done. In manual optimisation: batches in which at least one optimizer stepped.
        batches: Batches done in all.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    batches: int = 0

    def to_dict(self) -> dict[str, int]:
        """The position as plain numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> Position:
        """The position that ``to_dict`` gave."""
        return cls(**{name: int(numbers[name]) for name in ("epoch", "batch", "step", "batches")})

    def __str__(self) -> str:
        return f"epoch {self.epoch}, batch {self.batch}, step {self.step}"
