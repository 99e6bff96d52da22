"""What is due to be saved: the reasons that have come up since the last save, and the score of the present weights."""

from __future__ import annotations

import time

from lightning.pytorch import Trainer

from checkpointable.policy.conditions import SafePoint
from checkpointable.policy.options import Options
from checkpointable.policy.position import Ended, Position
from checkpointable.policy.reasons import PERIODIC, Reason
from checkpointable.saving.measured_interval import MeasuredInterval
from checkpointable.saving.saver import Saver


class Due:
    """The reasons for which one fit is due to be saved.

    Args:
        options: The constructor's arguments.
        saver: Measured for ``save_interval="auto"``.

    Attributes:
        reasons: The reasons that have come up. Empty: nothing is due.
        score: The monitored value, if the present weights are among the best.
        measured: Finds the interval for ``save_interval="auto"``; ``None`` before that is first asked for.
    """

    def __init__(self, options: Options, saver: Saver) -> None:
        self.reasons: set[Reason] = set()
        self.score: float | None = None
        self._noted_batch: int | None = None
        self.measured: MeasuredInterval | None = None
        self._saver = saver
        self._last_timed_save = time.monotonic()
        self.use(options)

    def use(self, options: Options) -> None:
        """Go by these arguments from now on."""
        self._conditions, self._interval = options.conditions, options.interval
        self._needs_time = options.train_time_interval is not None
        self._is_measured = options.measures_interval
        if self._is_measured and self.measured is None:
            self.measured = MeasuredInterval(options.overhead_budget, self._saver)

    @property
    def seconds(self) -> float:
        """Training time since the last save that ``train_time_interval`` asked for."""
        return time.monotonic() - self._last_timed_save

    def start_clock(self, seconds: float) -> None:
        """Training starts, so many seconds after that save."""
        self._last_timed_save = time.monotonic() - seconds

    def note_batch(self, batch: int) -> None:
        """From ``training_step``: note whether this batch of the epoch, counted from 1, ends an interval."""
        self._noted_batch = batch if self._interval is not None and self._interval.is_due(batch) else None

    def note_score(self, score: float) -> None:
        """The present weights are among the best."""
        self.reasons.add(Reason.BEST)
        self.score = score

    def after_batch(self, trainer: Trainer, previous: Position, position: Position) -> None:
        """The safe point after a batch. It also carries out what ``training_step`` has noted for this batch."""
        seconds = trainer.strategy.broadcast(self.seconds) if self._needs_time else 0.0  # ranks must not disagree
        point = SafePoint(ended=Ended.BATCH, position=position, previous=previous, seconds=seconds)
        reasons = self._conditions.reasons(point)
        if Reason.TIME in reasons:
            self.start_clock(0.0)
        self.reasons |= reasons
        measured = self.measured if self._is_measured else None
        if (measured is not None and measured.is_due(position.batches)) or self._noted_batch == position.batch:
            self.reasons.add(Reason.INTERVAL)
        self._noted_batch = None

    def after_epoch(self, position: Position) -> None:
        """The safe point after an epoch."""
        self.reasons |= self._conditions.reasons(SafePoint(ended=Ended.EPOCH, position=position, previous=position))

    def may_wait(self, options: Options) -> bool:
        """Whether this save may be taken at a later safe point, because the next one makes it outdated anyway."""
        return self.reasons <= PERIODIC and options.save_last_k != -1

    def take(self) -> frozenset[Reason]:
        """The reasons, which are now taken care of."""
        reasons, self.reasons = frozenset(self.reasons), set()
        return reasons
