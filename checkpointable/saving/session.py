"""One fit that saves itself: what is due, the safe point at which it is saved, and the result.

A save from top to bottom: ``on_batch_end`` finds what is due, ``_save`` asks for it, ``Saver.save`` captures the state
on the training thread, ``SaveTask.run`` makes the file on the background thread, ``_collect`` takes over the result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from checkpointable._errors import SaveError
from checkpointable.lightning_internals import callbacks
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.as_builtin import as_builtin
from checkpointable.policy.options import Options
from checkpointable.policy.position import Ended
from checkpointable.policy.reasons import Reason
from checkpointable.resume import loaders
from checkpointable.resume.restorer import Restorer
from checkpointable.resume.state import RunState
from checkpointable.saving import failures
from checkpointable.saving.due import Due
from checkpointable.saving.interrupt import CtrlC
from checkpointable.saving.monitor import Monitor, scalars
from checkpointable.saving.progress import Progress, describe
from checkpointable.saving.save_task import SaveRequest, base_name
from checkpointable.saving.saver import Saver
from checkpointable.saving.steps import call_before_steps


class Session:
    """Hears the events of one fit, holds what is due, starts saves and collects them.

    Only the training thread calls it. It holds no trainer, so that a module can be pickled. The loops call it, as
    ``loops.Listener`` says, and our callback.

    Attributes:
        options: The constructor's arguments. This is their only owner; other objects are given them.
        progress: Where the run stands.
        due: What is due to be saved.
        saver: Saves, and knows what is saved.
        monitor: Judges the monitored quantity.
        interrupt: Notes Ctrl-C.
        restorer: Restores what a checkpoint holds, if the fit resumes from one.
        resumes_after: What had just ended in that checkpoint, until the loop has taken its place there.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.interrupt = CtrlC()
        self.begin()

    def begin(self) -> None:
        """Forget everything of an earlier fit."""
        self.progress, self.monitor, self.restorer = Progress(), Monitor(), Restorer()
        self.saver = Saver(self.options)
        self.due = Due(self.options, self.saver)
        self.resumes_after: Ended | None = None
        self._request: SaveRequest | None = None

    def change(self, **changes: Any) -> None:
        """Change arguments in the middle of a run.

        Raises:
            PolicyError: If one cannot be used.
        """
        self.options = replace(self.options, **changes)
        self.due.use(self.options)

    def open(self, trainer: Trainer) -> None:
        """Before anything is trained: find and try the directory."""
        progress = self.progress
        progress.run_id, progress.lineage = trainer.strategy.broadcast((progress.run_id, progress.lineage))
        generation = self.saver.open(trainer, self.options, progress.run_id, progress.lineage, progress.position)
        progress.lineage = progress.lineage.after(generation)  # newer than any branch that was left

    def on_train_start(self, trainer: Trainer) -> None:
        """Start the clock, and say where a resumed run resumes."""
        strict = self.options.strict_resume
        self.due.start_clock(self.restorer.on_train_start(trainer, self.progress.initial_modes, strict=strict))
        self.progress.steps.listen(trainer)
        call_before_steps(trainer, self.saver.before_step)

    def before_first(self, trainer: Trainer, what: Ended) -> bool:
        """Restore the random generators if the run resumes here; return whether it does."""
        if what is Ended.EPOCH:
            self.saver.wait_for_staging()
            self.progress.is_consistent = False  # Lightning counts the epoch as begun; its loaders have drawn
        return self.restorer.before(trainer, what)

    def on_batch_start(self) -> None:
        """The next batch is about to be fetched."""
        self.progress.is_fetching = True
        self.due.on_batch_start()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it only counts
    def note_batch(self, batch_idx: int) -> None:
        """From ``training_step``: note whether this batch ends an interval. Its safe point saves, and judges again."""
        self.due.note_batch(batch_idx + 1)

    def on_batch_trained(self) -> None:
        """A batch has been trained. Validation, around which callbacks swap weights, is next."""
        self.saver.before_step()
        self.due.on_batch_trained()

    def on_batch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after a batch: save what is due, but not inside a window or before the end of the epoch.

        A best save does not wait for the end of a window, nor does Ctrl-C: the file holds its gradients.
        """
        progress, previous = self.progress, self.progress.position
        progress.reach(Ended.BATCH, progress.steps.count(trainer, previous))
        loaders.mark_consumed(internals.training_loader(trainer))
        self.due.after_batch(trainer, previous, progress.position)
        if self.interrupt.pressed:
            self.due.reasons.add(Reason.EXCEPTION)
        self._collect(trainer, wait=False)
        self.monitor.raise_problem()
        if not self.due.reasons or terminating or internals.epoch_is_over(trainer):
            return
        if not progress.steps.in_window(trainer) or Reason.BEST in self.due.reasons or self.interrupt.pressed:
            self._save(trainer)
            if self.interrupt.pressed:
                raise KeyboardInterrupt

    def on_epoch_ending(self, trainer: Trainer, *, early: bool) -> None:
        """The hooks of an epoch's end are next. Save a training that stops inside one: a longer run resumes there."""
        self.saver.wait_for_staging()
        if early and self.progress.is_consistent:
            self.due.note_last(self.options)
            self._save(trainer, final=True)
        self.progress.is_consistent = False

    def on_epoch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after an epoch: save what is due."""
        self.progress.reach(Ended.EPOCH, self.progress.position)
        self.due.after_epoch(self.progress.position)
        if not terminating:
            self._save(trainer)
            self.monitor.raise_problem()
            self.monitor.check_templates(trainer, self.options)
            if self.interrupt.pressed:
                raise KeyboardInterrupt

    def on_train_end(self, trainer: Trainer) -> None:
        """The end of training: save the last state, and wait until everything is on disk."""
        self.due.note_last(self.options)
        self._save(trainer, final=True)
        self._collect(trainer, wait=True)

    def on_run_end(self, trainer: Trainer) -> None:
        """Free what the fit has taken; a run that had nothing left to train gets its final state."""
        self.progress.steps.close()
        self.saver.close()
        restorer, self.restorer = self.restorer, Restorer()
        restorer.on_run_end(trainer)

    def on_run_failed(self) -> None:
        """Callbacks may swap weights when they hear of the exception: the copy must be complete before."""
        self.progress.steps.close()
        self.saver.wait_for_staging()

    def on_exception(self, trainer: Trainer, exception: BaseException) -> None:
        """Keep the last consistent state if it is the present one, and say which file to resume from."""
        if self.saver.store is None:  # nothing has begun
            return
        self.saver.wait_for_staging()
        if trainer.world_size == 1 or isinstance(exception, SIGTERMException):  # else other ranks may not come here
            if not self.interrupt.pressed_again:
                wanted = self.options.save_on_exception and not isinstance(exception, SaveError)
                collect = partial(self._collect, trainer, wait=True, final=True)
                save = partial(self._save, trainer, final=True) if wanted and self.progress.is_consistent else None
                if save is not None:
                    self.due.reasons.add(Reason.EXCEPTION)
                failures.keep_state(exception, self.interrupt, self.progress.position, collect=collect, save=save)
            self.saver.close()
        failures.say_where_to_resume(exception, self.saver, self.progress.position)

    def on_validation_end(self, trainer: Trainer) -> None:
        """Judge the weights by what this validation has logged."""
        self.progress.note_val_loss(trainer)  # again: an override may log it after its super()
        self.due.note_score(self.monitor.after_validation(trainer, self.options))

    def on_train_epoch_end(self, trainer: Trainer) -> None:
        """Judge the weights by what this training epoch has logged."""
        self.due.note_score(self.monitor.after_training_epoch(trainer, self.options))

    def capture(self, trainer: Trainer, *, weights_only: bool) -> dict[str, Any]:
        """What goes into a checkpoint under our key, also into one that the user or another callback saves."""
        request = self._request
        state = self.progress.capture(
            trainer,
            at_safe_point=request is not None,
            seconds=self.due.seconds,
            logged_names=self.monitor.logged_names,
            weights_only=weights_only,
        )
        resumed_from = self.saver.resumed_from
        metadata = describe(trainer, state, request, self.options, resumed_from=resumed_from, weights_only=weights_only)
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
        self.progress.take_over(state, resumes=ended is not None)
        self.resumes_after = state.ended
        self.monitor.logged_names.update(state.logged_names)
        self.due.take()
        rank_state = state.ranks[rank] if rank < len(state.ranks) else None
        self.restorer = Restorer() if ended is None else Restorer(state, rank_state, ended)

    def _save(self, trainer: Trainer, *, final: bool = False) -> None:
        """Save what is due. A periodic save that finds an earlier one in progress stays due until that is done.

        Raises:
            SaveError: If a ``final`` save fails.
        """
        if not self.due.reasons or callbacks.of_session(trainer, self) is None:
            self.due.take()
            return
        may_wait = not final and self.due.may_wait(self.options)
        if may_wait and not self.saver.is_idle and self.saver.is_busy(trainer):
            return
        self._collect(trainer, wait=True)
        reasons = self.due.take()
        if self.saver.has(trainer, self.progress.position, reasons):
            return
        self.due.note_start(self.progress.position)
        try:
            request = self._requested(trainer, reasons)
            self.saver.save(trainer, request, self.options, partial(self._checkpoint, trainer, request))
        except SaveError as error:
            failures.report(str(error), self.progress.position, self.saver.kept.last_path, final=final)
        if final or not self.options.async_save:
            self._collect(trainer, wait=True, final=final)

    def _requested(self, trainer: Trainer, reasons: frozenset[Reason]) -> SaveRequest:
        score, metrics = self.due.score if Reason.BEST in reasons else None, scalars(trainer.callback_metrics)
        return SaveRequest(
            run_id=self.progress.run_id,
            lineage=self.progress.lineage,
            position=self.progress.position,
            reasons=reasons,
            metrics=metrics,
            score=score,
            base_name=base_name(self.options, self.progress.position, metrics, is_best=score is not None),
        )

    def _checkpoint(self, trainer: Trainer, request: SaveRequest) -> dict[str, Any]:
        """Lightning's checkpoint of this moment. Making it calls ``on_save_checkpoint``, and that ``capture``."""
        with self._capturing(request):
            return internals.dump(trainer, weights_only=self.options.save_weights_only)

    @contextlib.contextmanager
    def _capturing(self, request: SaveRequest) -> Iterator[None]:
        """What is captured in here is for this request; elsewhere it is for the user or another callback."""
        self._request = request
        try:
            yield
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
        else:
            self.due.note_end(trainer, failed=result.problem is not None)
        publisher = callbacks.of_session(trainer, self)
        if publisher is not None and result.kept != before:  # also if one was deleted to make room, or is gone
            publisher.publish(trainer)
        if result.problem is not None:
            failures.report(result.problem, result.request.position, self.saver.kept.last_path, final=final)
