"""Where a run's orders go: what has come due is saved now, or at a later safe point, or the user is told why not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from checkpointable._errors import CheckpointableWarning, SaveError
from checkpointable.policy.auto_interval import Auto
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.saving.kept_files import Order
from checkpointable.saving.saver import Saver

if TYPE_CHECKING:
    from checkpointable.saving.callback import CheckpointingCallback

_CAN_WAIT = {"interval", "step", "time"}


class Desk:
    """The orders of one run.

    Attributes:
        due: Reasons for a save that have come due.
        score: The monitored value, if the present weights are among the best.
        order: The save that is being captured.
        saver: What saves.
        options: The constructor's arguments.
    """

    def __init__(self, options: Options) -> None:
        self.due: set[str] = set()
        self.score: float | None = None
        self.order: Order | None = None
        self.saver = Saver(options)
        self.options = options
        self._auto = Auto(options.overhead_budget)
        self._ordered: Position | None = None
        self._batch_began, self._blocked_before = time.monotonic(), 0.0

    def on_batch_starting(self) -> None:
        """The next batch is about to be fetched."""
        self._batch_began, self._blocked_before = time.monotonic(), self.saver.blocked_seconds

    def on_batch_trained(self) -> None:
        """A batch has been trained; its validation and its safe point are next."""
        self.saver.before_change()
        waited = self.saver.blocked_seconds - self._blocked_before
        self._auto.note_batch(time.monotonic() - self._batch_began - waited, writing=not self.saver.is_idle)

    def on_batch_over(self, position: Position) -> None:
        """A safe point after a batch: whether a save is due that nobody asked for by number."""
        if self.options.save_interval == "auto" and self.options.save_last_k != 0:
            ordered = self._ordered
            unmeasured = self._auto.interval is None and self.saver.is_idle
            if unmeasured or ordered is None or self._auto.is_due(position.batches - ordered.batches):
                self.due.add("interval")

    def save(
        self, trainer: Trainer, callback: CheckpointingCallback | None, position: Position, *, final: bool = False
    ) -> None:
        """Save what is due. An interval's save that finds an earlier one under way stays due until that is done.

        Raises:
            SaveError: If a ``final`` save fails.
        """
        if not self.due or callback is None:
            self.due.clear()
            return
        can_wait = not final and self.due <= _CAN_WAIT and self.options.save_last_k != -1
        if not self.saver.is_idle and can_wait and self.saver.is_busy(trainer):
            return
        self.settle(trainer, callback, wait=True)
        due, self.due = self.due, set()
        if self.saver.has(trainer, position, due):
            return
        score = self.score if "best" in due else None
        self.order = Order(reasons=due, position=position, metrics=scalars(trainer.callback_metrics), score=score)
        self._ordered = position
        self._auto.note_start()
        try:
            self.saver.save(trainer, self.order)
        except SaveError as error:
            self._not_saved(str(error), position, final=final)
        finally:
            self.order = None
        if final or not self.options.async_save:
            self.settle(trainer, callback, wait=True, final=final)

    def settle(
        self, trainer: Trainer, callback: CheckpointingCallback | None, *, wait: bool, final: bool = False
    ) -> None:
        """Make known what came of the save that was under way, if there was one.

        Raises:
            SaveError: If it was the ``final`` one, and failed.
        """
        if self.saver.is_idle:
            return
        before = self.saver.shelf
        outcome = self.saver.settle(trainer, wait=wait)
        if outcome is None:
            return
        if outcome.again:
            self.due |= outcome.order.reasons
        elif self.options.save_interval == "auto":
            self._measure(trainer, failed=outcome.problem is not None)
        if callback is not None and outcome.shelf != before:  # also where one was deleted to make room, or is gone
            callback.publish(trainer)
        if outcome.problem is not None:
            self._not_saved(outcome.problem, outcome.order.position, final=final)

    def _measure(self, trainer: Trainer, *, failed: bool) -> None:
        """What the save has cost, and the interval that follows, which is rank 0's: the others write nothing."""
        if trainer.is_global_zero:
            if failed:
                self._auto.note_failure()
            else:
                self._auto.note_save(blocked=self.saver.blocked_seconds, busy=self.saver.busy_seconds)
            news = self._auto.news()
            if news is not None:
                rank_zero_info(f"checkpointable: {news}")
        if trainer.world_size > 1:
            self._auto.agree(trainer.strategy.broadcast(self._auto.interval))

    def _not_saved(self, problem: str, at: Position, *, final: bool) -> None:
        lost = f"the state after {at} was not saved: {problem.rstrip('.')}."
        kept = self.saver.shelf.last_path or "none"
        if final:
            raise SaveError(f"{lost} Older checkpoints are untouched: {kept}.")
        rank_zero_warn(
            f"{lost} Training goes on, older checkpoints are untouched, and the next save tries again.",
            category=CheckpointableWarning,
        )


def scalars(metrics: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Logged values as plain numbers; those that are not scalar are left out."""
    return {name: float(value) for name, value in metrics.items() if value.numel() == 1}
