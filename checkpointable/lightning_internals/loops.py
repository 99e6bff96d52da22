"""The safe points: Lightning has no hook where the state of a training is consistent, but its loops pass such points.

After ``_TrainingEpochLoop.on_advance_end`` a batch is over: every callback, the user's hooks, the validation that the
batch triggered, plateau schedulers and counters are done, and the next batch has not been fetched, so no random number
of it is drawn. After ``_FitLoop.on_advance_end`` the same holds for an epoch. The nearest hooks are too early or too
late: at ``on_train_batch_end`` the validation is still to come, at ``on_train_epoch_end`` the schedulers are, and when
the next batch starts, its data has been drawn. So the loops of a trainer get the classes below before their own when a
fit starts.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals import callbacks, launched, signals
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.listener import Listener
from checkpointable.lightning_internals.tree import Mixin, find, put_before
from checkpointable.policy.position import Ended

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
    from lightning.pytorch.loops.fit_loop import _FitLoop
    from lightning.pytorch.loops.loop import _Loop
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
else:  # at run time, the base is the class of the loop that is observed
    _EvaluationLoop = _FitLoop = _TrainingEpochLoop = object


def observe(trainer: Trainer, listener: Listener) -> None:
    """Let a session hear of the safe points of this trainer, until the fit has ended."""
    put_before(_ObservedFitLoop, trainer.fit_loop)
    trainer.fit_loop.listener = listener  # type: ignore[attr-defined]  # it is an observed one now
    put_before(_ObservedEpochLoop, trainer.fit_loop.epoch_loop)
    put_before(_ObservedEvaluationLoop, trainer.fit_loop.epoch_loop.val_loop)
    signals.observe(trainer)


def set_batches_done(trainer: Trainer, batches: int) -> None:
    """Let the epoch that is resumed have this many batches behind it."""
    current: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    current.ready = current.started = current.processed = current.completed = batches


def log_at_present_step(trainer: Trainer, metrics: dict[str, float]) -> None:
    """Give values to the loggers, at the step of those that the training logs, and to nothing else."""
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=trainer.fit_loop.epoch_loop._batches_that_stepped)


def is_trained(trainer: Trainer) -> bool:
    """Whether nothing is left of what the trainer was asked to train, as ``_FitLoop.done`` says without a message."""
    fit_loop: Any = trainer.fit_loop
    epochs, steps = fit_loop.epoch_progress.current.processed, trainer.global_step
    stops = trainer.should_stop and fit_loop._can_stop_early
    in_epochs = fit_loop.max_epochs not in (None, -1) and epochs >= fit_loop.max_epochs
    return bool(stops or in_epochs or (fit_loop.max_steps != -1 and steps >= fit_loop.max_steps))


_NO_SESSION = Listener()


def session_of(trainer: Trainer) -> Listener:
    """What hears of the safe points of this trainer; a listener that does nothing if nothing does."""
    return getattr(trainer.fit_loop, "listener", _NO_SESSION)


def is_observed(trainer: Trainer) -> bool:
    """Whether a session hears of the safe points of this trainer: during a fit."""
    return session_of(trainer) is not _NO_SESSION


def _listener(loop: _Loop) -> Listener:
    listener: Listener = getattr(loop.trainer.fit_loop, "listener", _NO_SESSION)
    return listener.trial or listener


class _ObservedEpochLoop(Mixin, _TrainingEpochLoop):
    """Tells the session of each batch, and resumes after the batch that a checkpoint was saved after."""

    _validation_to_come = _has_ranks = False
    heard_by = _NO_SESSION  # what hears of the present batch; it is no attribute of the loop between two fits

    def reset(self) -> None:
        """Resume after a batch that is wholly over: none of Lightning's repairs for interrupted hooks applies."""
        listener = _listener(self)
        self._has_ranks = listener is not _NO_SESSION and self.trainer.world_size > 1
        if listener is _NO_SESSION:
            super().reset()
            return
        stepped = self._batches_that_stepped
        loader: Any = self.trainer.fit_loop._combined_loader
        flattened, loader._flattened = loader._flattened, []  # no warning that these have no state of their own
        try:
            super().reset()
        finally:
            loader._flattened = flattened
        if listener.resumes_after == Ended.BATCH and self._restarting:
            self.restarting = False
            self.reset_restart_stage()
            self.val_loop.reset_restart_stage()
            self._batches_that_stepped = stepped
            self._validation_to_come = listener.validates_first
            if not self._validation_to_come:
                self.batch_progress.is_last_batch = False  # set where an exception followed the fetch of the last batch
            self.trainer.fit_loop._restarting = False  # else plateau schedulers are skipped at its end
        listener.resumes_after = None
        listener.before_first(self.trainer, Ended.BATCH)

    @property
    def done(self) -> bool:
        return not self._validation_to_come and bool(super().done)

    def advance(self, data_fetcher: Any) -> None:
        listener = self.heard_by = _listener(self)
        if self._has_ranks:  # several; a single process is stopped by the loops and the session
            stop = signals.agree(self.trainer, listener)
            if stop and listener.may_stop:
                signals.end(self.trainer, stop)
        if not self._validation_to_come:
            listener.on_batch_start(self.trainer)
            super().advance(data_fetcher)

    def _broadcast_sigterm_tensor(self) -> None:
        """The ranks have agreed already, in place of this."""
        if _listener(self) is _NO_SESSION:
            super()._broadcast_sigterm_tensor()

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        """Whether the batch triggers a validation. A resume after the batch alone runs the one that is to come."""
        due = self._validation_to_come or bool(super()._should_check_val_fx(data_fetcher))
        self._validation_to_come = False
        if due and not self.restarting and not self._skip_next_val:
            _listener(self).on_validation_due(self.trainer)
        return due

    def on_advance_end(self, data_fetcher: Any) -> None:
        listener = self.heard_by
        if not self._validation_to_come:
            listener.on_batch_trained()
        try:
            super().on_advance_end(data_fetcher)
        except find(self, "SIGTERMException"):
            if not self.trainer.validating:  # in a validation no state is consistent
                listener.on_batch_end(self.trainer, terminating=True)
            raise
        listener.on_batch_end(self.trainer, terminating=False)


class _ObservedEvaluationLoop(Mixin, _EvaluationLoop):
    """Tells the session of the validation loaders, and of each batch of a validation inside the training."""

    def run(self) -> Any:
        try:
            outputs = super().run()
        except RuntimeError:
            with contextlib.suppress(RuntimeError):  # the store of the ranks is gone
                _listener(self).on_validation_failed(self.trainer)
            raise
        if not self.trainer.sanity_checking:
            _listener(self).on_validation_batches_over(self.trainer)  # without a batch it had no end
            _listener(self).on_validation_over()
        return outputs

    def _store_dataloader_outputs(self) -> None:
        if self.batch_progress.is_last_batch and not self.trainer.sanity_checking:
            _listener(self).on_validation_batches_over(self.trainer)  # before values of all ranks are reduced
        super()._store_dataloader_outputs()

    def _evaluation_step(self, *args: Any) -> None:
        super()._evaluation_step(*args)
        if not self.trainer.sanity_checking:
            _listener(self).on_validation_batch_end(self.trainer)

    def setup_data(self) -> None:
        super().setup_data()
        if self._combined_loader is not None:
            _listener(self).restorer.on_validation_loaders(self.trainer, self._combined_loader)


class _ObservedFitLoop(Mixin, _FitLoop):
    """Tells the session of the run and each epoch, and resumes after the epoch that a checkpoint was saved after."""

    listener = _NO_SESSION

    def run(self) -> None:
        listener = _listener(self)
        callbacks.open_late(self.trainer, listener)
        listener.on_run_start(self.trainer)
        try:
            super().run()
        except BaseException:
            launched.end_with_parent(self.trainer, whether=False)
            listener.on_run_failed()
            raise
        if listener.restorer.resumes:  # for a second fit, where nothing was left to train: no iteration has done it
            self.on_iteration_done()
            find(self, "_Loop").restarting.fset(self, False)
        listener.on_run_end(self.trainer)

    @property
    def skip(self) -> bool:
        """Lightning skips a run with nothing left to train. One that resumes still gets the hooks of its end."""
        if not _listener(self).restorer.resumes or 0 in (self.trainer.limit_train_batches, self.max_batches):
            return bool(super().skip)
        return False

    @property
    def done(self) -> bool:
        """An epoch that has ended early is resumed too, for the hooks of its end."""
        return not self._has_only_to_end_the_epoch() and bool(super().done)

    def _has_only_to_end_the_epoch(self) -> bool:
        stops = self.trainer.should_stop and self._can_stop_early
        return _listener(self).resumes_after == Ended.BATCH and (stops or self.epoch_loop._is_training_done)

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Skip the sanity check, which Lightning runs where the checkpoint was saved after an epoch."""
        super().load_state_dict(state_dict, prefix)
        _listener(self).on_optimizers_made(self.trainer)
        if _listener(self).resumes_after == Ended.EPOCH:
            self.epoch_loop.val_loop._restarting = True  # the sanity check is skipped while it is set

    def _load_combined_loader_states(self) -> None:
        """Lightning calls it after the loaders are made and before their iterators are."""
        loader = self._combined_loader
        if loader is not None and _listener(self).restorer.on_training_loaders(self.trainer, loader):
            self._combined_loader_states_to_load = []
        super()._load_combined_loader_states()

    def on_advance_start(self) -> None:
        launched.end_with_parent(self.trainer, whether=True)
        if _listener(self).before_first(self.trainer, Ended.EPOCH):
            self._resuming_from_checkpoint = False  # else no new iterator is made for the epoch
        super().on_advance_start()

    def teardown(self) -> None:
        internals.show_validation_step(self.trainer.lightning_module)
        vars(self).pop("listener", None)
        vars(self.epoch_loop).pop("heard_by", None)
        signals.leave(self.trainer)
        super().teardown()

    def reset(self) -> None:
        """Resume after an epoch that is wholly over: the next one starts as in a run that was not stopped."""
        if _listener(self).resumes_after == Ended.EPOCH:
            find(self, "_Loop").restarting.fset(self, False)  # the setter of _FitLoop may set it to True
        super().reset()

    def on_run_start(self) -> None:
        """In a run that resumes, make the loaders of a validation as early as Lightning does, for the report."""
        listener = _listener(self)
        if listener.restorer.resumes and self.epoch_loop._should_check_val_epoch():
            self.trainer.validating = True
            self.epoch_loop.val_loop.setup_data()
            self.trainer.training = True
        listener.on_train_start(self.trainer)
        super().on_run_start()

    def on_advance_end(self) -> None:
        listener = _listener(self)
        listener.on_epoch_ending(self.trainer, early=not self.epoch_loop._num_ready_batches_reached())
        try:
            super().on_advance_end()
        except find(self, "SIGTERMException"):
            listener.on_epoch_end(self.trainer, terminating=True)
            raise
        launched.end_with_parent(self.trainer, whether=False)  # that may end as soon as all have agreed
        stop = signals.agree(self.trainer, listener)
        listener.on_epoch_end(self.trainer, terminating=bool(stop))
        signals.end(self.trainer, stop)

    def on_run_end(self) -> None:
        _listener(self).on_train_end(self.trainer)
        super().on_run_end()
