"""One training run: what has come due, and the safe point at which it is saved."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader

from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.conditions import Conditions
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.options import Options
from checkpointable.policy.position import Ended, Position
from checkpointable.resume import state
from checkpointable.resume.loaders import observe, settle
from checkpointable.resume.restorer import WayBack
from checkpointable.saving import capture
from checkpointable.saving.interrupt import CtrlC
from checkpointable.saving.monitor import Judge
from checkpointable.saving.on_exception import leave
from checkpointable.saving.overlap import wait_before_steps
from checkpointable.saving.scheduler import Desk
from checkpointable.saving.steps import Steps


class Run:
    """Hears of the safe points, decides what is due, and saves it. Holds no trainer, so a module can be pickled.

    Attributes:
        options: The constructor's arguments.
        position: Where the run stands: after the last batch that is wholly over.
        best_val_loss: Lowest validation loss so far; ``inf`` before the first validation.
        made: The modes in which the script made the module; see ``modes``.
        whole: Whether the state is that of ``position``, with nothing begun since.
        fetching: Whether the next batch is being fetched or prepared, which draws from the random generators.
        safe_point: ``"batch"`` or ``"epoch"``: what had ended at the last one.
        steps: Counts batches and optimizer steps.
        clock: When time began to count, for ``train_time_interval``; of the monotonic clock.
        lineage: This attempt, and those it descends from.
        resumed_at: ``"batch"`` or ``"epoch"``, from the restoring of a checkpoint until the loop has taken it up.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.ctrl_c = CtrlC()
        self.begin()

    def begin(self) -> None:
        """Forget everything of an earlier fit."""
        self.run_id = uuid.uuid4().hex[:12]
        self.position = Position()
        self.best_val_loss = math.inf
        self.whole = self.fetching = False
        self.made: Mapping[str, list[str]] = {}
        self.resumed_at: str | None = None
        self.desk = Desk(self.options)
        self.saver = self.desk.saver
        self.judge = Judge(self.options)
        self._conditions = Conditions.of(self.options)
        self.safe_point: Ended | None = None
        self.lineage = Lineage.begin()
        self._way_back: WayBack | None = None
        self.clock = time.monotonic()
        self.steps = Steps()

    def change(self, **changes: Any) -> None:
        """Change an argument in the middle of a run.

        Raises:
            PolicyError: If it cannot be used.
        """
        self.options = replace(self.options, **changes)
        self._conditions = Conditions.of(self.options)
        self.desk.options = self.options

    def open(self, trainer: Trainer) -> None:
        """Before anything is trained: find and try the directory."""
        self.run_id, self.lineage = trainer.strategy.broadcast((self.run_id, self.lineage))
        resumes = self.saver.start(trainer, self.run_id, self.lineage, self.position)
        self.lineage = self.lineage.after(resumes)  # newer than any branch that has been left

    def on_run(self, trainer: Trainer) -> None:
        """The loop is about to look whether there is anything left to train."""
        if self._way_back is not None:
            self._way_back.on_run(trainer)

    def after_run(self, trainer: Trainer) -> None:
        """The loop is left, after its end or because there was nothing left to train."""
        self.steps.close()
        self.saver.close()
        way_back, self._way_back = self._way_back, None
        if way_back is not None:
            way_back.after_run(trainer)

    def on_failing(self) -> None:
        """The loop is left by an exception: callbacks may swap weights when they hear of it."""
        self.steps.close()
        self.saver.wait_for_copy()

    def on_training_loaders(self, trainer: Trainer, loader: CombinedLoader) -> bool:
        """Observe the loaders, and go back to where they stood."""
        observe(loader)
        if self._way_back is not None:
            self._way_back.on_training_loaders(loader, internals.epochs_done(trainer))
        return self._way_back is not None

    def on_validation_loaders(self, trainer: Trainer, loader: CombinedLoader) -> None:
        """Observe the loaders, and bring back the generators they own."""
        observe(loader)
        if self._way_back is not None and not trainer.sanity_checking:
            self._way_back.on_validation_loaders(trainer, loader)

    def before(self, trainer: Trainer, what: str) -> bool:
        """The next batch is about to be fetched, or the next epoch to start."""
        if what == "epoch":
            self.saver.wait_for_copy()
            self.whole = False  # Lightning counts the epoch as begun, and has started its loaders, which draw
        return self._way_back is not None and self._way_back.before(trainer, what)

    def on_start(self, trainer: Trainer) -> None:
        """Take up the count where Lightning's stands, and say where a resumed run goes on."""
        seconds = 0.0
        if self._way_back is not None:
            seconds = self._way_back.on_start(trainer, self.made, strict=self.options.strict_resume)
        self.clock = time.monotonic() - seconds
        self.steps.listen(trainer)
        wait_before_steps(trainer, self.saver.before_change)

    def on_batch_starting(self) -> None:
        """The next batch is about to be fetched."""
        self.fetching = True
        self.desk.on_batch_starting()

    def on_batch_ending(self, trainer: Trainer) -> None:
        """The last moment before a validation, around which callbacks swap weights."""
        self.desk.on_batch_trained()

    def on_batch_over(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after a batch: save what is due, unless a window is open or the epoch is about to end.

        What is best does not wait for a window's end, nor does Ctrl-C: the file has its gradients.
        """
        before, self.position = self.position, self.steps.count(trainer, self.position)
        self.whole, self.fetching = True, False
        settle(internals.training_loader(trainer))
        self.safe_point = Ended.BATCH
        self.desk.due |= self._conditions.after_batch(before, self.position)
        self.desk.on_batch_over(self.position)
        if self._conditions.seconds is not None:
            self._note_time(trainer)
        if self.ctrl_c.pressed:
            self.desk.due.add("exception")
        self._settle(trainer, wait=False)
        self.judge.raise_problem()
        if not self.desk.due or terminating or internals.epoch_is_over(trainer):
            return
        if not self.steps.in_window(trainer) or "best" in self.desk.due or self.ctrl_c.pressed:
            self._save(trainer)
            self._stop_if_asked()

    def on_epoch_ending(self, trainer: Trainer, *, early: bool) -> None:
        """A training that stops inside an epoch is saved before the epoch's end: a longer one goes on there."""
        self.saver.wait_for_copy()
        if early and self.whole:
            if self.options.save_last:
                self.desk.due.add("last")
            self._save(trainer, final=True)
        self.whole = False

    def on_epoch_over(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after an epoch: save what is due."""
        self.whole, self.fetching = True, False
        self.safe_point = Ended.EPOCH
        self.desk.due |= self._conditions.after_epoch(self.position.epoch)
        if not terminating:
            self._save(trainer)
            self.judge.raise_problem()
            self.judge.check_templates(trainer)
            self._stop_if_asked()

    def on_end(self, trainer: Trainer) -> None:
        """The end of training: the last state is saved, whatever else is due."""
        if self.options.save_last:
            self.desk.due.add("last")
        self._save(trainer, final=True)
        self._settle(trainer, wait=True)

    def on_exception(self, trainer: Trainer, exception: BaseException) -> None:
        """Keep the last consistent state, if that is the present one; else say which file has it."""
        if self.saver.store is not None:  # else nothing has begun
            self.saver.wait_for_copy()
            callback = self._callback(trainer)
            leave(trainer, callback, self.desk, self.ctrl_c, self.position, exception, whole=self.whole)

    def note_val_loss(self, trainer: Trainer) -> None:
        """Move ``best_val_loss``, by what the validation that is ending has logged."""
        value = internals.logged_now(trainer).get("val_loss")
        if value is not None and value.numel() == 1:
            self.best_val_loss = min(self.best_val_loss, float(value))

    def note_best(self, score: float | None) -> None:
        """A judge found that these weights are one of the best."""
        if score is not None and self.saver.admits(score):
            self.desk.due.add("best")
            self.desk.score = score

    def snapshot(self, trainer: Trainer, *, weights_only: bool) -> dict[str, Any]:
        """What goes into a checkpoint under our key, whoever writes it."""
        return capture.of(self, trainer, weights_only=weights_only)

    def restore(self, saved: Mapping[str, Any], *, rank: int = 0, after: str | None = None) -> None:
        """Take over what a checkpoint of ours says.

        Args:
            saved: The value of our key.
            rank: Of this process.
            after: ``"batch"`` or ``"epoch"``: what had just ended, by Lightning's counters.

        Raises:
            ResumeError: If it was written by a later version of the library.
        """
        restored = state.RunState.from_dict(saved)
        self.run_id = restored.run_id
        self.position = restored.position
        self.best_val_loss = restored.best_val_loss
        self.resumed_at = restored.ended
        self.lineage = restored.lineage.resume(restored.position.batches)
        self.judge.seen.update(restored.logged_names)
        self.desk.due.clear()
        self.steps.stepped = restored.stepped[0], restored.stepped[1]
        here = restored.ranks[rank] if rank < len(restored.ranks) else None
        self._way_back = None if after is None else WayBack(restored, here, after)

    def _save(self, trainer: Trainer, *, final: bool = False) -> None:
        self.desk.save(trainer, self._callback(trainer), self.position, final=final)

    def _settle(self, trainer: Trainer, *, wait: bool) -> None:
        if not self.saver.is_idle:
            self.desk.settle(trainer, self._callback(trainer), wait=wait)

    def _note_time(self, trainer: Trainer) -> None:
        seconds = time.monotonic() - self.clock
        if trainer.strategy.broadcast(self._conditions.after_seconds(seconds)):
            self.desk.due.add("time")
            self.clock = time.monotonic()

    def _stop_if_asked(self) -> None:
        if self.ctrl_c.pressed:
            raise KeyboardInterrupt

    def _callback(self, trainer: Trainer) -> Any:
        """Our callback, if this is a fit that we save in: not one inside a tuner, which sets all callbacks aside."""
        if internals.fast_dev_run(trainer):
            return None
        return next((c for c in trainer_callbacks.callbacks(trainer) if getattr(c, "run", None) is self), None)
