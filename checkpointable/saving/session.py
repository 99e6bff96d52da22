"""One fit that saves itself: what is due, the safe point at which it is saved, and the result.

A save from top to bottom: ``on_batch_end`` finds what is due, ``_save`` asks for it, ``Saver.save`` captures the state
on the training thread, ``SaveTask.run`` makes the file on the background thread, ``_collect`` takes over the result.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from checkpointable._errors import CheckpointableWarning, SaveError
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.as_builtin import as_builtin
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.options import Options
from checkpointable.policy.position import Ended, Position
from checkpointable.policy.reasons import Reason
from checkpointable.resume import loaders
from checkpointable.resume.restorer import Restorer
from checkpointable.resume.state import RunState
from checkpointable.saving import capture, on_exception
from checkpointable.saving.due import Due
from checkpointable.saving.interrupt import CtrlC
from checkpointable.saving.monitor import Monitor, scalars
from checkpointable.saving.overlap import call_before_steps
from checkpointable.saving.save_task import SaveRequest, base_name
from checkpointable.saving.saver import Saver
from checkpointable.saving.steps import Steps


class Publisher(Protocol):
    """Our callback in a trainer, through which loggers learn of new files."""

    def publish(self, trainer: Trainer) -> None:
        """Tell the loggers which files are durable now."""


class Session:
    """Hears the events of one fit, holds what is due, starts saves and collects them.

    Only the training thread calls it. It holds no trainer, so that a module can be pickled.

    Attributes:
        options: The constructor's arguments. This is their only owner; other objects are given them.
        run_id: The run, the same over all its resumes.
        lineage: This attempt, and those it descends from.
        position: Where the run stands: after the last batch that is completely over.
        best_val_loss: Lowest validation loss so far; ``inf`` before the first validation.
        initial_modes: The modes in which the script made the module; see ``module_modes``.
        is_consistent: Whether the state is that of ``position``, with nothing begun since.
        resumes_after: What had just ended in the checkpoint resumed from, until the loop has taken its place there.
        due: What is due to be saved.
        saver: Saves, and knows what is saved.
        monitor: Judges the monitored quantity.
        interrupt: Notes Ctrl-C.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.interrupt = CtrlC()
        self.begin()

    def begin(self) -> None:
        """Forget everything of an earlier fit."""
        self.run_id, self.lineage = uuid.uuid4().hex[:12], Lineage.begin()
        self.position, self.best_val_loss = Position(), math.inf
        self.initial_modes: Mapping[str, list[str]] = {}
        self.is_consistent = False
        self.resumes_after: Ended | None = None
        self.saver, self.monitor, self._steps = Saver(self.options), Monitor(), Steps()
        self.due = Due(self.options, self.saver)
        self._restorer: Restorer | None = None
        self._ended = Ended.BATCH
        self._fetching = False
        self._request: SaveRequest | None = None

    def change(self, **changes: Any) -> None:
        """Change arguments in the middle of a run.

        Raises:
            PolicyError: If one cannot be used.
        """
        self.options = replace(self.options, **changes)
        self.due.use(self.options)

    # Events of the trainer, in their order.

    def open(self, trainer: Trainer) -> None:
        """Before anything is trained: find and try the directory."""
        self.run_id, self.lineage = trainer.strategy.broadcast((self.run_id, self.lineage))
        generation = self.saver.open(trainer, self.options, self.run_id, self.lineage, self.position)
        self.lineage = self.lineage.after(generation)  # newer than any branch that was left

    def on_run_start(self, trainer: Trainer) -> None:
        """The loop is about to look whether there is anything left to train."""
        if self._restorer is not None:
            self._restorer.on_run(trainer)

    def on_training_loaders(self, trainer: Trainer, loader: CombinedLoader) -> bool:
        """Training loaders are made: observe them, and return whether a resume puts them into position."""
        loaders.track_positions(loader)
        if self._restorer is not None:
            self._restorer.on_training_loaders(loader, internals.epochs_done(trainer))
        return self._restorer is not None

    def on_validation_loaders(self, trainer: Trainer, loader: CombinedLoader) -> None:
        """Validation loaders are made: observe them, and restore the generators they own."""
        loaders.track_positions(loader)
        if self._restorer is not None and not trainer.sanity_checking:
            self._restorer.on_validation_loaders(trainer, loader)

    def on_train_start(self, trainer: Trainer) -> None:
        """The first hook of training is next: start the clock, and say where a resumed run resumes."""
        seconds = 0.0
        if self._restorer is not None:
            seconds = self._restorer.on_start(trainer, self.initial_modes, strict=self.options.strict_resume)
        self.due.start_clock(seconds)
        self._steps.listen(trainer)
        call_before_steps(trainer, self.saver.before_step)

    def before_first(self, trainer: Trainer, what: Ended) -> bool:
        """A loop's first batch is about to be fetched, or an epoch to start. Returns whether that resumes the run."""
        if what is Ended.EPOCH:
            self.saver.wait_for_staging()
            self.is_consistent = False  # Lightning counts the epoch as begun and has started its loaders, which draw
        return self._restorer is not None and self._restorer.before(trainer, what)

    def on_batch_start(self) -> None:
        """The next batch is about to be fetched."""
        self._fetching = True
        if self.due.measured is not None:
            self.due.measured.on_batch_start()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it only counts
    def note_batch(self, batch_idx: int) -> None:
        """From ``training_step``: note whether this batch ends an interval. Its safe point saves, and judges again."""
        self.due.note_batch(batch_idx + 1)

    def on_batch_trained(self, trainer: Trainer) -> None:
        """A batch has been trained. Validation, around which callbacks swap weights, is next."""
        self.saver.before_step()
        if self.due.measured is not None:
            self.due.measured.on_batch_trained()

    def on_batch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after a batch: save what is due, but not inside a window or before the end of the epoch.

        A best save does not wait for the end of a window, nor does Ctrl-C: the file holds its gradients.
        """
        previous, self.position = self.position, self._steps.count(trainer, self.position)
        self._ended, self.is_consistent, self._fetching = Ended.BATCH, True, False
        loaders.mark_consumed(internals.training_loader(trainer))
        self.due.after_batch(trainer, previous, self.position)
        if self.interrupt.pressed:
            self.due.reasons.add(Reason.EXCEPTION)
        self._collect(trainer, wait=False)
        self.monitor.raise_problem()
        if not self.due.reasons or terminating or internals.epoch_is_over(trainer):
            return
        if not self._steps.in_window(trainer) or Reason.BEST in self.due.reasons or self.interrupt.pressed:
            self._save(trainer)
            self._stop_if_interrupted()

    def on_epoch_ending(self, trainer: Trainer, *, early: bool) -> None:
        """The hooks of an epoch's end are next. Save a training that stops inside one: a longer run resumes there."""
        self.saver.wait_for_staging()
        if early and self.is_consistent:
            self._note_last()
            self._save(trainer, final=True)
        self.is_consistent = False

    def on_epoch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after an epoch: save what is due."""
        self._ended, self.is_consistent, self._fetching = Ended.EPOCH, True, False
        self.due.after_epoch(self.position)
        if not terminating:
            self._save(trainer)
            self.monitor.raise_problem()
            self.monitor.check_templates(trainer, self.options)
            self._stop_if_interrupted()

    def on_train_end(self, trainer: Trainer) -> None:
        """The end of training: save the last state, and wait until everything is on disk."""
        self._note_last()
        self._save(trainer, final=True)
        self._collect(trainer, wait=True)

    def on_run_end(self, trainer: Trainer) -> None:
        """The loop has ended, or there was nothing left to train."""
        self._steps.close()
        self.saver.close()
        restorer, self._restorer = self._restorer, None
        if restorer is not None:
            restorer.after_run(trainer)

    def on_run_failed(self) -> None:
        """An exception leaves the loop. Callbacks have not heard of it yet, and may swap weights when they do."""
        self._steps.close()
        self.saver.wait_for_staging()

    def on_exception(self, trainer: Trainer, exception: BaseException) -> None:
        """Keep the last consistent state if it is the present one, and say which file to resume from."""
        if self.saver.store is None:  # nothing has begun
            return
        self.saver.wait_for_staging()
        if trainer.world_size == 1 or isinstance(exception, SIGTERMException):  # else other ranks may not come here
            if not self.interrupt.pressed_again:
                keep = self.is_consistent and self.options.save_on_exception and not isinstance(exception, SaveError)
                collect = partial(self._collect, trainer, wait=True, final=True)
                save = partial(self._save_for_exception, trainer) if keep else None
                on_exception.keep_state(exception, self.interrupt, self.position, collect=collect, save=save)
            self.saver.close()
        on_exception.say_where_to_resume(exception, self.saver, self.position)

    def on_validation_end(self, trainer: Trainer) -> None:
        """Judge the weights by what this validation has logged."""
        self.note_val_loss(trainer)  # again: an override may log it after its super()
        self._note_score(self.monitor.after_validation(trainer, self.options))

    def on_train_epoch_end(self, trainer: Trainer) -> None:
        """Judge the weights by what this training epoch has logged."""
        self._note_score(self.monitor.after_training_epoch(trainer, self.options))

    def note_val_loss(self, trainer: Trainer) -> None:
        """Move ``best_val_loss`` by what the validation that is ending has logged."""
        value = internals.logged_now(trainer).get("val_loss")
        if value is not None and value.numel() == 1:
            self.best_val_loss = min(self.best_val_loss, float(value))

    # What goes into a checkpoint, and what comes back.

    def capture(self, trainer: Trainer, *, weights_only: bool) -> dict[str, Any]:
        """What goes into a checkpoint under our key, also into one that the user or another callback saves."""
        request = self._request
        state = RunState(
            run_id=self.run_id,
            lineage=self.lineage,
            position=self.position,
            ended=None if request is None else request.ended,
            best_val_loss=self.best_val_loss,
            seconds=self.due.seconds,
            stepped=self._steps.stepped,
            initial_modes=self.initial_modes,
            fetching=request is not None and self._fetching,
            logged_names=sorted(self.monitor.logged_names),
        )
        in_window = request is not None and self._steps.in_window(trainer)
        state = capture.complete(trainer, state, in_window=in_window, weights_only=weights_only)
        resumed_from = self.saver.resumed_from
        metadata = capture.describe(trainer, state, request, self.options, resumed_from, weights_only=weights_only)
        return {**as_builtin(state), "metadata": metadata.to_dict()}

    def restore(self, saved: Mapping[str, Any], *, rank: int = 0, ended: Ended | None = None) -> None:
        """Take over what ``capture`` gave.

        Args:
            saved: The value of our key in a checkpoint.
            rank: Of this process.
            ended: What had just ended, by Lightning's counters; ``None``: only the numbers are taken over.

        Raises:
            ResumeError: If it was written by a later version of the library.
        """
        state = RunState.from_dict(saved)
        self.run_id, self.position, self.best_val_loss = state.run_id, state.position, state.best_val_loss
        self.resumes_after = state.ended
        self.lineage = state.lineage.resume(state.position.batches) if ended is not None else state.lineage
        self.monitor.logged_names.update(state.logged_names)
        self.due.take()
        self._steps.stepped = state.stepped[0], state.stepped[1]
        rank_state = state.ranks[rank] if rank < len(state.ranks) else None
        self._restorer = None if ended is None else Restorer(state, rank_state, ended)

    # What is due, and its save.

    def _note_last(self) -> None:
        if self.options.save_last:
            self.due.reasons.add(Reason.LAST)

    def _note_score(self, score: float | None) -> None:
        if score is not None and self.saver.admits(score):
            self.due.note_score(score)

    def _save(self, trainer: Trainer, *, final: bool = False) -> None:
        """Save what is due. A periodic save that finds an earlier one in progress stays due until that is done.

        Raises:
            SaveError: If a ``final`` save fails.
        """
        if not self.due.reasons or self._publisher(trainer) is None:
            self.due.take()
            return
        may_wait = not final and self.due.may_wait(self.options)
        if may_wait and not self.saver.is_idle and self.saver.is_busy(trainer):
            return
        self._collect(trainer, wait=True)
        reasons = self.due.take()
        if self.saver.has(trainer, self.position, reasons):
            return
        if self.due.measured is not None:
            self.due.measured.note_start(self.position)
        try:
            request = self._requested(trainer, reasons)
            self.saver.save(trainer, request, self.options, partial(self._checkpoint, trainer, request))
        except SaveError as error:
            self._not_saved(str(error), self.position, final=final)
        if final or not self.options.async_save:
            self._collect(trainer, wait=True, final=final)

    def _requested(self, trainer: Trainer, reasons: frozenset[Reason]) -> SaveRequest:
        score = self.due.score if Reason.BEST in reasons else None
        metrics = scalars(trainer.callback_metrics)
        return SaveRequest(
            run_id=self.run_id,
            lineage=self.lineage,
            position=self.position,
            ended=self._ended,
            reasons=reasons,
            metrics=metrics,
            score=score,
            base_name=base_name(self.options, self.position, metrics, is_best=score is not None),
        )

    def _checkpoint(self, trainer: Trainer, request: SaveRequest) -> dict[str, Any]:
        """Lightning's checkpoint of this moment. It calls ``on_save_checkpoint``, and that ``capture``."""
        self._request = request
        try:
            return internals.dump(trainer, weights_only=self.options.save_weights_only)
        finally:
            self._request = None

    def _collect(self, trainer: Trainer, *, wait: bool, final: bool = False) -> None:
        """Take over the result of the save that was in progress, if there was one.

        Raises:
            SaveError: If it was the ``final`` one and failed.
        """
        if self.saver.is_idle:
            return
        before = self.saver.kept
        result = self.saver.collect(trainer, wait=wait)
        if result is None:
            return
        if result.retry:
            self.due.reasons |= result.request.reasons
        elif self.due.measured is not None and self.options.measures_interval:
            self.due.measured.note_end(trainer, failed=result.problem is not None)
        publisher = self._publisher(trainer)
        if publisher is not None and result.kept != before:  # also if one was deleted to make room, or is gone
            publisher.publish(trainer)
        if result.problem is not None:
            self._not_saved(result.problem, result.request.position, final=final)

    def _not_saved(self, problem: str, position: Position, *, final: bool) -> None:
        lost = f"the state after {position} was not saved: {problem.rstrip('.')}."
        if final:
            raise SaveError(f"{lost} Older checkpoints are untouched: {self.saver.kept.last_path or 'none'}.")
        rank_zero_warn(
            f"{lost} Training goes on, older checkpoints are untouched, and the next save tries again.",
            category=CheckpointableWarning,
        )

    def _save_for_exception(self, trainer: Trainer) -> None:
        self.due.reasons.add(Reason.EXCEPTION)
        self._save(trainer, final=True)

    def _stop_if_interrupted(self) -> None:
        if self.interrupt.pressed:
            raise KeyboardInterrupt

    def _publisher(self, trainer: Trainer) -> Publisher | None:
        """Our callback if it is attached now. Without it nothing is saved: in a dry run, and in a tuner's trials."""
        if internals.fast_dev_run(trainer):
            return None
        attached: list[Any] = list(trainer_callbacks.callbacks(trainer))
        return next((it for it in attached if getattr(it, "session", None) is self), None)
