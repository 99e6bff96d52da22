"""What is due to be saved: the reasons since the last save, and the score of the present weights."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_info

from checkpointable.policy.auto_interval import Auto
from checkpointable.policy.clock import Clock
from checkpointable.policy.conditions import SafePoint
from checkpointable.policy.options import Options
from checkpointable.policy.position import Ended, Position
from checkpointable.policy.reasons import PERIODIC, Reason
from checkpointable.saving.on_rank_zero import is_shared
from checkpointable.saving.save_task import SaveResult
from checkpointable.saving.saver import Saver

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Due:
    """The reasons for which one fit is due to be saved; none: nothing is due."""

    def __init__(self, options: Options, saver: Saver) -> None:
        self.reasons: set[Reason] = set()
        self.score: float | None = None  # the monitored value, if the present weights are among the best
        self.measured = MeasuredInterval(options.overhead_budget, saver)
        self._saver = saver
        self.clock = Clock()
        self.use(options)

    def use(self, options: Options) -> None:
        """Follow these arguments from now on."""
        self._conditions, self._interval = options.conditions, options.interval
        self._is_timed = options.train_time_interval is not None
        self._noted_batch: int | None = None  # by arguments that no longer hold
        self.measured.is_on = options.measures_interval

    def note_batch(self, batch: int | None) -> None:
        """From ``training_step``: note whether this batch of the epoch, counted from 1 if at all, ends an interval."""
        is_due = batch is not None and self._interval is not None and self._interval.is_due(batch)
        self._noted_batch = batch if is_due else None

    def note_last(self, options: Options) -> None:
        """Note that training ends here."""
        if options.save_last:
            self.reasons.add(Reason.LAST)

    def note_score(self, score: float | None) -> None:
        """Note whether the present weights are among the best, by their score if they have one."""
        if score is not None and self._saver.admits(score):
            self.reasons.add(Reason.BEST)
            self.score = score

    def after_batch(self, trainer: Trainer, previous: Position, position: Position) -> None:
        """Note what is due at the safe point after a batch, also by what ``training_step`` noted."""
        seconds = self._seconds(trainer) if self._is_timed else 0.0
        reasons = self._conditions.reasons(SafePoint(Ended.BATCH, position, previous, seconds))
        if reasons:
            self.reasons |= reasons
            if Reason.TIME in reasons:
                self.clock.start(0.0)
        is_due = self.measured.is_on and self.measured.is_due(position.batches)
        if is_due or self._noted_batch == position.batch:
            self.reasons.add(Reason.INTERVAL)
        self._noted_batch = None

    def _seconds(self, trainer: Trainer) -> float:
        """Since the last save that the time asked for, the same on all ranks."""
        return (self.clock.of_first or 0.0) if trainer.world_size > 1 else self.clock.seconds

    def after_epoch(self, position: Position) -> None:
        """Note what is due at the safe point after an epoch."""
        self.reasons |= self._conditions.reasons(SafePoint(ended=Ended.EPOCH, position=position, previous=position))

    def after_save(self, trainer: Trainer, result: SaveResult, options: Options) -> None:
        """Note the result of a save: it is due again at once, or what it cost. Collective."""
        if result.retry:
            self.reasons |= result.request.reasons
        elif options.is_of_interval(weights_only=result.request.weights_only):
            self.measured.note_end(trainer, failed=result.problem is not None)

    def may_wait(self, options: Options) -> bool:
        """Whether this save may be taken at a later safe point, because the next one makes it outdated anyway."""
        return self.reasons <= PERIODIC and options.save_last_k != -1

    def take(self) -> frozenset[Reason]:
        """The reasons, which are now taken care of."""
        reasons, self.reasons = frozenset(self.reasons), set()
        return reasons


class MeasuredInterval:
    """Measures one fit, to find the interval for ``save_interval="auto"``. Measures nothing unless it ``is_on``."""

    def __init__(self, budget: float, saver: Saver) -> None:
        self.is_on = False
        self._auto = Auto(budget)
        self._saver = saver
        self._last_save: Position | None = None
        self._batch_began, self._blocked_before = time.monotonic(), 0.0

    def on_batch_start(self) -> None:
        """Before the next batch is fetched."""
        self._batch_began, self._blocked_before = time.monotonic(), self._saver.blocked_seconds

    def on_batch_trained(self) -> None:
        """After a batch is trained, before its validation and its safe point."""
        waited = self._saver.blocked_seconds - self._blocked_before
        seconds = time.monotonic() - self._batch_began - waited
        self._auto.note_batch(seconds, writing=self._saver.in_progress is not None)

    def is_due(self, batches: int) -> bool:
        """Whether a save is due after so many batches in all. The first one is due at once, to be measured."""
        if self._last_save is None or (self._auto.interval is None and self._saver.in_progress is None):
            return True
        return self._auto.is_due(batches - self._last_save.batches)

    def note_start(self, position: Position) -> None:
        """Count the interval from here, where a save begins for any reason."""
        self._last_save = position
        if self.is_on:
            self._auto.note_start()

    def note_end(self, trainer: Trainer, *, failed: bool) -> None:
        """Find the interval from the cost of a save that has ended. Collective: rank 0 measures, all ranks follow."""
        if not self.is_on:
            return
        if trainer.is_global_zero:
            if failed:
                self._auto.note_failure()
            else:
                self._auto.note_save(blocked=self._saver.blocked_seconds, busy=self._saver.busy_seconds)
            news = self._auto.news()
            if news is not None:
                rank_zero_info(f"checkpointable: {news}")
        if is_shared(trainer):
            self._auto.agree(trainer.strategy.broadcast(self._auto.interval))
