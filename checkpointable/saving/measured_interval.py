"""``save_interval="auto"``: measures what batches and saves take in a training, and says when the next save is due."""

from __future__ import annotations

import time

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from checkpointable.policy.auto_interval import Auto
from checkpointable.policy.position import Position
from checkpointable.saving.saver import Saver


class MeasuredInterval:
    """Measures one fit.

    Args:
        budget: The share of training time that saving may cost.
        saver: What saves.
    """

    def __init__(self, budget: float, saver: Saver) -> None:
        self._auto = Auto(budget)
        self._saver = saver
        self._last_save: Position | None = None
        self._batch_began, self._blocked_before = time.monotonic(), 0.0

    def on_batch_start(self) -> None:
        """The next batch is about to be fetched."""
        self._batch_began, self._blocked_before = time.monotonic(), self._saver.blocked_seconds

    def on_batch_trained(self) -> None:
        """A batch has been trained; its validation and its safe point are next."""
        waited = self._saver.blocked_seconds - self._blocked_before
        seconds = time.monotonic() - self._batch_began - waited
        self._auto.note_batch(seconds, writing=not self._saver.is_idle)

    def is_due(self, batches: int) -> bool:
        """Whether a save is due after so many batches in all: also the first one, which is measured."""
        if self._last_save is None or (self._auto.interval is None and self._saver.is_idle):
            return True
        return self._auto.is_due(batches - self._last_save.batches)

    def note_start(self, position: Position) -> None:
        """A save begins, for whatever reason: the interval is counted from here."""
        self._last_save = position
        self._auto.note_start()

    def note_end(self, trainer: Trainer, *, failed: bool) -> None:
        """A save has ended: the interval follows from its cost. Collective: rank 0 measures, all ranks follow."""
        if trainer.is_global_zero:
            if failed:
                self._auto.note_failure()
            else:
                self._auto.note_save(blocked=self._saver.blocked_seconds, busy=self._saver.busy_seconds)
            news = self._auto.news()
            if news is not None:
                rank_zero_info(f"checkpointable: {news}")
        if trainer.world_size > 1:
            self._auto.agree(trainer.strategy.broadcast(self._auto.interval))
