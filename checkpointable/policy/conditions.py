"""When a save comes due. Conditions combine by *or*; each names itself as the reason of the save."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checkpointable.policy.options import Options
    from checkpointable.policy.position import Position

NOTHING: Set[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of one run.

    Attributes:
        interval: Batches between two saves, counted within the epoch; ``None`` = never, or as is found out.
        auto: Whether the interval is found out.
        steps: Optimizer steps between two saves; ``None`` = never.
        seconds: Wall time between two saves; ``None`` = never.
        epochs: Epochs between two saves at the end of an epoch; ``None`` = never.
    """

    interval: int | None = None
    auto: bool = False
    steps: int | None = None
    seconds: float | None = None
    epochs: int | None = None

    @classmethod
    def of(cls, options: Options) -> Conditions:
        """The conditions that the constructor's arguments ask for."""
        if options.save_last_k == 0:
            return cls()
        time = options.train_time_interval
        return cls(
            interval=options.save_interval if isinstance(options.save_interval, Integral) else None,
            auto=options.save_interval == "auto",
            steps=options.every_n_train_steps or None,
            seconds=None if time is None else time.total_seconds(),
            epochs=options.every_n_epochs or None,
        )

    def after_batch(self, before: Position, now: Position) -> Set[str]:
        """Reasons to save that the batch between the two positions has brought."""
        interval_due = self.interval is not None and now.batch % self.interval == 0
        steps_due = self.steps is not None and now.step // self.steps > before.step // self.steps
        if not interval_due and not steps_due:
            return NOTHING
        return {reason for reason, due in (("interval", interval_due), ("step", steps_due)) if due}

    def after_seconds(self, seconds: float) -> bool:
        """Whether a save is due, so many seconds after the last one that time had asked for."""
        return self.seconds is not None and seconds >= self.seconds

    def after_epoch(self, epoch: int) -> Set[str]:
        """Reasons to save that the end of this epoch has brought."""
        return {"epoch"} if self.epochs is not None and (epoch + 1) % self.epochs == 0 else NOTHING

    def __bool__(self) -> bool:
        return self.auto or any(value is not None for value in (self.interval, self.steps, self.seconds, self.epochs))
