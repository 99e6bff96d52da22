"""Our callback: forwards the trainer's callbacks to the session, and is ``trainer.checkpoint_callback`` for loggers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import proxy

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import finders, loops
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.checkpoint_io import DurableCheckpointIO
from checkpointable.lightning_internals.tree import check
from checkpointable.resume import module_state
from checkpointable.resume.restorer import ResumingCheckpointIO
from checkpointable.saving import recording
from checkpointable.saving.kept_files import KeptFiles
from checkpointable.saving.session import Session


def _from_kept_files(read: Callable[[KeptFiles], Any]) -> Any:
    """An attribute that is read from the durable files. ``ModelCheckpoint`` sets it too, which has no effect."""
    return property(lambda callback: read(callback.session.saver.kept_on_disk), lambda callback, value: None)


class CheckpointingCallback(ModelCheckpoint):
    """Forwards the trainer's callbacks to the session, and shows loggers and Lightning what is saved.

    It is a ``ModelCheckpoint`` because Lightning and loggers look for one, but only the session saves, at the safe
    points. If there is no best checkpoint, ``ckpt_path="best"`` is the last one, as in Lightning. For a module that is
    not ours, the ``ModelCheckpoint`` that it ``replaced``, which Lightning adds by default, is attached again.
    """

    best_k_models = _from_kept_files(lambda kept: score_tensors(kept))
    best_model_path = _from_kept_files(lambda kept: kept.best_path or kept.last_path)
    best_model_score = _from_kept_files(lambda kept: next(iter(score_tensors(kept).values()), None))
    current_score = _from_kept_files(lambda kept: score_tensors(kept).get(kept.last_path))
    kth_best_model_path = _from_kept_files(lambda kept: next(reversed(kept.scores), ""))
    last_model_path = _from_kept_files(lambda kept: kept.last_path)

    def __init__(self, session: Session, replaced: ModelCheckpoint | None) -> None:
        self.session = session
        options = session.options
        super().__init__(
            monitor=options.monitor,
            mode=options.mode,
            save_top_k=options.save_top_k if options.keeps_best else 0,
            save_weights_only=options.save_weights_only,
            auto_insert_metric_name=options.auto_insert_metric_name,
            save_last=options.save_last,
        )
        self.replaced = replaced

    def publish(self, trainer: Trainer) -> None:
        """Let the loggers read which files are durable now."""
        if self.kth_best_model_path:
            self.kth_value = self.best_k_models[self.kth_best_model_path]
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Detach for a fit of a module that is not ours."""
        if stage == "fit" and pl_module.__dict__.get("_checkpointing") is not self.session:
            trainer_callbacks.detach(trainer, self)
            if self.replaced is not None:
                trainer_callbacks.attach(trainer, self.replaced)
                self.replaced.setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Try the directory before anything is trained."""
        if not internals.fast_dev_run(trainer):
            self.session.open(trainer)
            recording.prepare(trainer, self.session)
            store = self.session.saver.store
            self.dirpath = None if store is None else store.directory

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record batches and note Ctrl-C from now on."""
        if not internals.fast_dev_run(trainer):
            recording.start(trainer, self.session)
        if self.session.options.save_on_exception and trainer.world_size == 1:
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
        self.session.saver.before_step()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the score of the weights after a validation of this fit."""
        if internals.is_fitting(trainer) and not trainer.sanity_checking:
            self.session.on_validation_end(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the score of the weights after a training epoch."""
        self.session.on_train_epoch_end(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop noting Ctrl-C."""
        self.session.interrupt.close()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The fit has ended normally, so its trace is not needed any more."""
        if not internals.fast_dev_run(trainer):
            self.session.recorder.finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the last consistent state."""
        self.session.interrupt.close()
        if internals.is_fitting(trainer) and not internals.fast_dev_run(trainer):
            self.session.on_exception(trainer, exception)
        self.session.recorder.close()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the state is under the module's own key in the checkpoint."""
        return {}

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """Lightning resumes from it for ``ckpt_path="last"``."""
        return {self.session.saver.kept.last_path} - {""}


def score_tensors(kept: KeptFiles) -> dict[str, torch.Tensor]:
    """The best files and their scores, shape (), best first."""
    return {path: torch.tensor(score) for path, score in kept.scores.items()}


def attach(trainer: Trainer, session: Session) -> None:
    """Let this session save in a trainer that is about to fit; prepare it also to validate, test or predict."""
    check(trainer)
    internals.install_checkpoint_io(trainer, ResumingCheckpointIO)
    trainer_callbacks.mark_implicit_checkpoint(trainer)
    if not internals.is_fitting(trainer):
        return
    attached = next((c for c in trainer_callbacks.callbacks(trainer) if isinstance(c, CheckpointingCallback)), None)
    if attached is None or attached.session is not session or not internals.has_trained_before(trainer):
        session.begin()
        session.progress.initial_modes = module_state.capture_modes(trainer.lightning_module)
    session.progress.is_consistent = False  # also after an earlier fit
    session.resumes_after = session.end = None
    session.due.take()
    loops.observe(trainer)
    finders.observe(trainer)
    _attach_early_stopping(trainer, session)
    if not session.options.saves_anything or not _may_save(trainer):
        return
    replaced = attached.replaced if attached is not None else trainer_callbacks.take_implicit_checkpoint(trainer)
    if attached is not None:
        trainer_callbacks.detach(trainer, attached)
    trainer_callbacks.attach(trainer, CheckpointingCallback(session, replaced), first_checkpoint=True)


def _may_save(trainer: Trainer) -> bool:
    if not trainer.checkpoint_callbacks:
        rank_zero_info("checkpointable: Trainer(enable_checkpointing=False), so nothing is saved.")
        return False
    io = internals.base_checkpoint_io(trainer)
    if not isinstance(io, DurableCheckpointIO):
        rank_zero_info(
            f"checkpointable: {type(io).__name__} writes the files, so they have no metadata of checkpointable:"
            " latest() and best() do not find them, and none of them is deleted."
        )
    if not internals.saves_whole_files(trainer):
        rank_zero_info(
            f"checkpointable: {type(trainer.strategy).__name__} saves in shards, which is not supported yet."
            " Lightning's own checkpointing is unchanged."
        )
        return False
    return True


def _attach_early_stopping(trainer: Trainer, session: Session) -> None:
    options = session.options
    for callback in trainer.early_stopping_callbacks:
        if getattr(callback, "_checkpointable_session", session) is not session:
            trainer_callbacks.detach(trainer, callback)  # added by us for a module that was fitted before
    if options.patience is None:
        return
    stopping = EarlyStopping(
        monitor=str(options.monitor),
        mode=options.mode,
        min_delta=options.min_delta,
        patience=options.patience,
        strict=not options.keeps_best,  # where best checkpoints are kept, the session reports a missing monitor
        check_finite=False,  # NaN counts as no improvement, and does not stop the training
    )
    stopping._checkpointable_session = session  # type: ignore[attr-defined]  # marks it as ours
    if all(callback.state_key != stopping.state_key for callback in trainer_callbacks.callbacks(trainer)):
        trainer_callbacks.attach(trainer, stopping)
