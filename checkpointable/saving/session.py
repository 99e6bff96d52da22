"""One fit that saves itself: what is due, the safe point at which it is saved, and the result.

A save from top to bottom: ``on_batch_end`` finds what is due, ``save`` asks for it, ``Saver.save`` captures the state
on the training thread, ``SaveTask.run`` makes the file on the background thread, ``collect`` takes over the result.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from checkpointable._errors import SaveError
from checkpointable.lightning_internals import callbacks
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.listener import Listener
from checkpointable.lightning_internals.signals import Interrupted
from checkpointable.policy.options import Options
from checkpointable.policy.position import Ended
from checkpointable.policy.reasons import Reason
from checkpointable.resume import loaders
from checkpointable.resume.recorder import Recorder
from checkpointable.resume.restorer import Restorer
from checkpointable.resume.state import RunState
from checkpointable.saving import all_ranks, cost, failures, new_run
from checkpointable.saving.cut_validation import CutValidation
from checkpointable.saving.directory import with_absolute_dirpath
from checkpointable.saving.due import Due
from checkpointable.saving.end_state import EndState, at_end
from checkpointable.saving.history import RunHistory
from checkpointable.saving.interrupt import CtrlC
from checkpointable.saving.logs import Logs
from checkpointable.saving.measured import Measured
from checkpointable.saving.monitor import Monitor
from checkpointable.saving.progress import Progress
from checkpointable.saving.save_task import SaveRequest
from checkpointable.saving.saver import Saver

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Session(Listener):
    """Follows the events of one fit, starts the saves that are due, and collects their results.

    The loops call it on the training thread, in the order that ``Listener`` describes, and so does our callback.
    It holds no trainer, so that a module can be pickled.

    Attributes:
        options: The constructor's arguments. Other objects get them as an argument, so that a change reaches all.
        resumes_after: What had just ended in the checkpoint resumed from, until the resumed epoch has begun.
        trial: What hears in place of the session while a finder trains on trial.
        end: The state at which the training ended, once it has.
        validation: The validation that is running, if a signal may cut it short.
        request: What is being captured; ``None`` while user code or another callback makes a checkpoint.
    """

    interrupt: CtrlC
    restorer: Restorer
    end: EndState | None
    request: SaveRequest | None

    def __init__(self, options: Options) -> None:
        self.options, self.interrupt = with_absolute_dirpath(options), CtrlC()
        self.begin()

    def begin(self) -> None:
        """Start without the state of an earlier fit."""
        self.progress, self.monitor, self.restorer, self.recorder = Progress(), Monitor(), Restorer(), Recorder()
        self.saver, self.logs = Saver(self.options), Logs()
        self.due = Due(self.options, self.saver)
        self.validation, self.measured, self.history = CutValidation(), Measured(), RunHistory()
        self.resumes_after = self.trial = self.end = self.request = None

    @property
    def may_stop(self) -> bool:
        """Whether several ranks may stop here: a file holds the gradients of rank 0 alone."""
        return self.progress.is_consistent and not self.progress.in_window

    def change(self, **changes: Any) -> None:
        """Change arguments in the middle of a run; a ``PolicyError`` if one cannot be used."""
        self.options = with_absolute_dirpath(replace(self.options, **changes))
        self.due.use(self.options)

    def open(self, trainer: Trainer) -> None:
        """Before anything is trained: find and try the directory."""
        progress = self.progress
        progress.run_id, progress.lineage = trainer.strategy.broadcast((progress.run_id, progress.lineage))
        generation = self.saver.open(trainer, self.options, progress.run_id, progress.lineage, progress.position)
        progress.lineage = progress.lineage.after(generation)  # newer than every file of this run
        new_run.announce(trainer, self.options, self.saver)

    def on_optimizers_made(self, trainer: Trainer) -> None:
        """Note the numbers of the script, before those of the file are restored."""
        self.restorer.on_optimizers_made(trainer)

    def on_run_start(self, trainer: Trainer) -> None:
        """Compare what Lightning has restored with the file, and note which numbers are used."""
        self.progress.made, self.progress.unused = self.restorer.on_run_start(trainer)

    def on_train_start(self, trainer: Trainer) -> None:
        """Start the clock, restore the training state of a resumed run, and report what could not be restored."""
        strict = self.options.strict_resume
        self.due.clock.start(self.restorer.on_train_start(trainer, self.progress.initial_modes, strict=strict))
        self.progress.position = self.restorer.position or self.progress.position
        self.progress.counted = self.progress.position if self.validates_first else None
        new_run.say_if_never_due(trainer, self.options)
        self.progress.steps.listen(trainer)

    def before_first(self, trainer: Trainer, what: Ended) -> bool:
        """Restore the random generators if the run resumes here, at a safe point again; return whether it does."""
        if what is Ended.EPOCH:
            self.saver.wait_for_staging()
            self.end = None
            self.logs.before_epoch(trainer, validates_first=self.validates_first)
            self.progress.is_consistent = False  # Lightning counts the epoch as begun, and its order may be drawn
        resumes = self.restorer.before(trainer, what)
        if resumes and what is Ended.BATCH:
            self.progress.reach(trainer, what, self.progress.position)
        if what is Ended.BATCH and self.options.save_trainable_only and internals.saves_whole_files(trainer):
            self.progress.frozen_part.begin(trainer.lightning_module)
        return resumes

    def on_batch_start(self, trainer: Trainer) -> None:
        """Before the next batch is fetched."""
        self.progress.is_fetching = True
        self.measured.on_batch_start(trainer, self.progress.position)
        if self.due.measured.is_on:
            self.due.measured.on_batch_start()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it only counts
    def note_batch(self, batch_idx: int | None) -> None:
        """From ``training_step``: note whether this batch ends an interval. The save follows at its safe point."""
        self.due.note_batch(None if batch_idx is None else batch_idx + 1)

    def on_batch_trained(self) -> None:
        """After a batch is trained: complete the copy before the validation, as callbacks may swap weights there."""
        if self.saver.in_progress is not None:
            self.saver.before_step()
        if self.due.measured.is_on:
            self.due.measured.on_batch_trained()

    def on_validation_due(self, trainer: Trainer) -> None:
        """Keep the state before a validation, which a signal may cut short."""
        self.progress.count(trainer)
        if self.options.save_on_exception and callbacks.of_session(trainer, self) is not None:
            self.validation.prepare(trainer, self, self.progress.ahead(trainer), self.state)

    def on_validation_batch_end(self, trainer: Trainer) -> None:
        """Let a signal cut the validation short."""
        self.validation.after_batch(trainer, self)

    def on_validation_batches_over(self, trainer: Trainer) -> None:
        """The last moment for that under several ranks."""
        self.validation.after_batches(trainer, self)

    def on_validation_over(self) -> None:
        """From here on a signal waits for the safe point."""
        self.validation.over()

    def on_validation_failed(self, trainer: Trainer) -> None:
        """After an error in it: end as the other ranks, if they have left because of a signal."""
        self.validation.after_error(trainer, self)

    def on_batch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after a batch: save what is due. Inside a window, a best save and Ctrl-C alone do not wait."""
        if self.validation.before is not None:  # it is cut short
            return
        progress, previous = self.progress, self.progress.position
        progress.reach(trainer, Ended.BATCH, progress.count(trainer))
        if self.validates_first:
            self.validates_first, self.saver.outrun = False, self.saver.resumed_from
        loaders.mark_consumed(internals.training_loader(trainer))
        self.due.after_batch(trainer, previous, progress.position)
        if not self.saver.is_prepared and progress.position.step:
            self.saver.prepare(trainer, self.options)
        stops = self.interrupt.pressed and trainer.world_size == 1  # several ranks agree on it before the next batch
        if stops:
            self.due.reasons.add(Reason.EXCEPTION)
        if self.saver.in_progress is not None:
            self.collect(trainer, wait=False)
        if self.monitor.problem is not None:
            self.monitor.raise_problem()
        if not self.due.reasons or terminating or trainer.fit_loop.epoch_loop.done:
            return
        if not progress.in_window or Reason.BEST in self.due.reasons or stops:
            self.save(trainer)
            if stops:
                raise Interrupted

    def on_epoch_ending(self, trainer: Trainer, *, early: bool) -> None:
        """Before the hooks of an epoch's end. A training that stops early is saved here, so a longer run can resume."""
        self.saver.wait_for_staging()
        if early and self.progress.is_consistent:
            self.end = at_end(trainer, self.state)
            self.due.note_last(self.options)
            self.save(trainer, final=True)
        self.progress.is_consistent = False

    def on_epoch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after an epoch: save what is due."""
        self.progress.reach(trainer, Ended.EPOCH, self.progress.position)
        self.due.after_epoch(self.progress.position)
        if not terminating:
            self.save(trainer)
            self.monitor.raise_problem()
            self.monitor.check_templates(trainer, self.options)
            if self.interrupt.pressed and trainer.world_size == 1:
                raise Interrupted

    def on_train_end(self, trainer: Trainer) -> None:
        """Save the last state, and wait until everything is on disk."""
        self.restorer.on_train_end(trainer, self.progress.position)
        self.due.note_last(self.options)
        self.save(trainer, final=True)
        self.collect(trainer, wait=True)
        self.end = self.end or at_end(trainer, self.state)
        self.progress.is_consistent = False  # the hooks of the end may change anything

    def on_run_end(self, trainer: Trainer) -> None:
        """Free what the fit used."""
        self.progress.steps.close()
        self.saver.close()
        self.restorer = Restorer()

    def on_run_failed(self) -> None:
        """Complete the copy before callbacks handle the exception, as they may swap weights."""
        self.progress.steps.close()
        self.saver.wait_for_staging()

    def state(
        self, trainer: Trainer, progress: Progress | None = None, *, at_safe_point: bool, weights_only: bool
    ) -> RunState:
        """The run's state for a checkpoint, at the present ``progress`` if none is given. Collective."""
        return (progress or self.progress).capture(
            trainer,
            at_safe_point=at_safe_point,
            seconds=self.due.clock.seconds,
            logged_names=self.monitor.logged_names,
            weights_only=weights_only,
        )

    def save(self, trainer: Trainer, *, final: bool = False) -> None:
        """Save what is due; a ``SaveError`` if it is the ``final`` save and fails.

        A periodic save that finds an earlier one in progress stays due until that one is done.
        """
        if not self.due.reasons or callbacks.of_session(trainer, self) is None:
            self.due.take()
            return
        if (
            not final
            and self.due.may_wait(self.options)
            and self.saver.in_progress is not None
            and self.saver.is_busy(trainer)
        ):
            return
        all_ranks.meet(trainer, self.options.save_timeout, self.progress.position)
        self.collect(trainer, wait=True)
        failed: list[SaveError] = []
        for reasons in self.options.files_for(self.due.take()):
            try:
                self._save_file(trainer, reasons, final=final)
            except SaveError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def _save_file(self, trainer: Trainer, reasons: frozenset[Reason], *, final: bool) -> None:
        self.collect(trainer, wait=True)
        request = self.progress.request(trainer, reasons, self.due.score, self.options)
        if self.saver.has(trainer, request):
            return
        self.due.measured.note_start(self.progress.position)
        self.request = request  # by which run_state.add describes the checkpoint
        try:
            self.saver.save(trainer, request, self.options)
            self.progress.steps.guard(trainer, self.saver.before_step)
        except SaveError as error:
            failures.report(str(error), self.progress.position, self.saver.kept.last_path, final=final)
        finally:
            self.request = None
        if final or not self.options.async_save:
            self.collect(trainer, wait=True, final=final)

    def collect(self, trainer: Trainer, *, wait: bool, final: bool = False) -> None:
        """Handle the result of the save that was in progress; a ``SaveError`` if it is ``final`` and failed."""
        before = self.saver.kept
        result = self.saver.collect(trainer, wait=wait)
        if result is None:
            return
        self.progress.steps.unguard()
        self.due.after_save(trainer, result, self.options)
        cost.note(trainer, result, self.saver, self.history, logs=self.options.log_save_cost)
        publisher = callbacks.of_session(trainer, self)
        if publisher is not None and result.kept != before:  # also if one was deleted to make room, or is missing
            publisher.publish(trainer)
        if result.problem is not None:
            failures.report(result.problem, result.request.position, self.saver.kept.last_path, final=final)
