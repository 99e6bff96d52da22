"""Our callback: forwards the trainer's callbacks to the session, and is ``trainer.checkpoint_callback`` for loggers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import proxy

import torch

from checkpointable._errors import SaveError
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import launched, loops, model_parallel, signals
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.tree import Mixin
from checkpointable.policy.options import Options
from checkpointable.saving import last_state, recording, requeued
from checkpointable.saving.kept_files import KeptFiles
from checkpointable.saving.on_rank_zero import on_rank_zero
from checkpointable.saving.run_attributes import score_tensors
from checkpointable.saving.session import Session

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
else:  # at run time, the base is that class in the tree of the trainer
    ModelCheckpoint = object


def _from_kept_files(read: Callable[[KeptFiles], Any]) -> Any:
    """An attribute that is read from the durable files. The constructor of ``ModelCheckpoint`` sets it, in vain."""
    return property(lambda callback: read(callback.session.saver.kept_on_disk), lambda callback, value: None)


class CheckpointingCallback(Mixin, ModelCheckpoint):
    """Forwards the trainer's callbacks to the session, and shows loggers and Lightning what is saved.

    It is a ``ModelCheckpoint`` because Lightning and loggers look for one, but only the session saves, at the safe
    points. If there is no best checkpoint, ``ckpt_path="best"`` is the last one, as in Lightning. For a module that is
    not ours, the ``ModelCheckpoint`` that it ``replaced``, which Lightning adds by default, is attached again.
    """

    best_k_models = _from_kept_files(lambda kept: score_tensors(kept))
    best_model_path = _from_kept_files(lambda kept: kept.best_path or kept.last_path)
    best_model_score = _from_kept_files(lambda kept: next(iter(score_tensors(kept).values()), None))
    current_score = _from_kept_files(lambda kept: _score_tensor(kept.last_score))
    kth_best_model_path = _from_kept_files(lambda kept: next(reversed(kept.scores), ""))
    last_model_path = _from_kept_files(lambda kept: kept.last_path)
    names_the_class = True
    _is_made = False

    def __init__(self, session: Session, replaced: ModelCheckpoint | None) -> None:
        self.session = session
        options = session.options
        super().__init__(
            monitor=options.monitor,
            mode=options.mode,
            save_top_k=options.save_top_k if options.keeps_best else 0,
            save_weights_only=options.save_weights_only is True,
            auto_insert_metric_name=options.auto_insert_metric_name,
            save_last=options.save_last,
        )
        self.replaced = replaced
        self._is_made = True

    def __setattr__(self, name: str, value: Any) -> None:
        """Change an argument of the run, as assigning to a ``ModelCheckpoint`` does.

        Raises:
            AttributeError: If it is one that is read from the durable files.
            PolicyError: If it cannot be used.
        """
        if self._is_made and isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"{name} cannot be set: it is read from the checkpoints that are kept")
        if self._is_made and name in ("dirpath", "fast_dirpath") and self.session.saver.store is not None:
            raise AttributeError(f"{name} cannot be set in a fit that saves there already: give it to the constructor")
        if self._is_made and name == "save_trainable_only":
            raise AttributeError(f"{name} cannot be set: what is frozen is noted before the training begins")
        if self._is_made and name in Options.__dataclass_fields__:
            self.session.change(**{name: value})
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        """The arguments of the run that a ``ModelCheckpoint`` does not have, such as ``save_interval``."""
        if name not in Options.__dataclass_fields__ or "session" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.session.options, name)

    def publish(self, trainer: Trainer) -> None:
        """Let the loggers read which files are durable now."""
        if self.kth_best_model_path:
            self.kth_value = self.best_k_models[self.kth_best_model_path]
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Detach for a fit that another session saves, or none."""
        if stage == "fit" and loops.session_of(trainer) is not self.session:
            trainer_callbacks.detach(trainer, self)
            if self.replaced is not None:
                trainer_callbacks.attach(trainer, self.replaced)
                self.replaced.setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Try the directory before anything is trained."""
        if not model_parallel.parts_model(trainer):  # else the checkpoint is not restored yet
            self.open(trainer)

    def open(self, trainer: Trainer) -> None:
        """Find and try the directory, and look for what the run that is resumed has there."""
        if not internals.fast_dev_run(trainer):
            session = self.session
            session.open(trainer)
            requeued.note(trainer, session.options, session.saver.directory, session.progress.run_id)
            recording.prepare(trainer, session)
            session.history.open(
                trainer, session.options, session.progress, session.saver.resumed_from, session.recorder.ends
            )
            store = self.session.saver.store
            options = self.session.options
            there = options.dirpath if options.fast_dirpath is not None else store and store.directory
            vars(self)["dirpath"] = there
            launched.find_out(trainer)
            launched.finish_first(self.session.saver.wait_for_file)
            if self.session.options.save_on_exception:
                signals.save_before_requeue(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record batches and note Ctrl-C from now on."""
        if not internals.fast_dev_run(trainer):
            recording.start(trainer, self.session)
        if self.session.options.save_on_exception:
            self.session.interrupt.listen()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """From now on the state is not that of a finished batch."""
        self.session.progress.is_consistent = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss. The safe point comes later."""
        self.session.recorder.record(self.session.progress.position.batches + 1, outputs, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Complete the copy before the parameters change."""
        if self.session.saver.in_progress is not None:
            self.session.saver.before_step()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the score of the weights after a validation of this fit."""
        if internals.is_fitting(trainer) and not trainer.sanity_checking:
            session = self.session
            session.progress.note_val_loss(trainer)  # again: an override may log it after its super()
            session.due.note_score(session.monitor.after_validation(trainer, session.options))
            position = session.progress.counted
            if position is not None:  # else it belongs to no batch: user code has run it
                names = session.measured.after_validation(trainer, position)
                session.history.note_point(position, names, trainer.callback_metrics, "validation")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the score of the weights after a training epoch."""
        session = self.session
        session.due.note_score(session.monitor.after_training_epoch(trainer, session.options))
        position = session.progress.position
        names = session.measured.after_training_epoch(trainer, position)
        session.history.note_point(position, names, trainer.callback_metrics, "epoch")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop noting Ctrl-C."""
        self.session.interrupt.close()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The fit has ended normally: wait for copies in ``dirpath``. Its trace is not needed any more.

        Raises:
            SaveError: If one that must be there is not.
        """
        if not internals.fast_dev_run(trainer):
            if self.session.options.fast_dirpath is not None:
                missing = on_rank_zero(trainer, self.session.saver.finish)
                if missing is not None:
                    raise SaveError(missing)
            self.session.recorder.finish()
            if not signals.requeue_at_end(trainer):  # else the job goes on after this fit
                requeued.end_fit(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the last consistent state."""
        self.session.interrupt.close()
        if internals.is_fitting(trainer) and not internals.fast_dev_run(trainer):
            last_state.keep(trainer, self.session, exception)
        history = self.session.history
        self.session.recorder.close(history.how_it_ends(trainer), history.session)

    @property
    def best_val_loss(self) -> float:
        """Lowest ``val_loss`` so far; ``inf`` before the first validation."""
        return self.session.progress.best_val_loss

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the run's state is under a key of its own in the checkpoint."""
        return {}

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """Lightning resumes from it for ``ckpt_path="last"``."""
        return {self.session.saver.kept.last_path} - {""}


def _score_tensor(score: float | None) -> torch.Tensor | None:
    return None if score is None else torch.tensor(score)
