"""Attaches saving to a trainer at the start of a fit, in place of what Lightning attaches by itself."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import loops
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.check import check
from checkpointable.lightning_internals.checkpoint_io import DurableCheckpointIO
from checkpointable.resume import module_modes
from checkpointable.resume.fall_back import ResumingCheckpointIO
from checkpointable.saving.callback import CheckpointingCallback
from checkpointable.saving.session import Session


def attach(trainer: Trainer, session: Session) -> None:
    """Make this session the one that saves in a trainer that is about to fit, validate, test or predict."""
    check(trainer)
    internals.install_checkpoint_io(trainer, ResumingCheckpointIO)
    trainer_callbacks.mark_implicit_checkpoint(trainer)
    if not internals.is_fitting(trainer):
        return
    attached = next((c for c in trainer_callbacks.callbacks(trainer) if isinstance(c, CheckpointingCallback)), None)
    if attached is None or attached.session is not session or not internals.has_trained_before(trainer):
        session.begin()
        session.initial_modes = module_modes.capture(trainer.lightning_module)
    session.is_consistent = False  # whatever an earlier fit has left
    session.resumes_after = None
    session.due.take()
    loops.observe(trainer)
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
    io = internals.own_checkpoint_io(trainer)
    if not isinstance(io, DurableCheckpointIO):
        rank_zero_info(
            f"checkpointable: {type(io).__name__} writes the files, and not checkpointable: they do not say what they"
            " are, so latest() and best() do not find them, and none of them is deleted."
        )
    if not internals.saves_whole_files(trainer):
        rank_zero_info(
            f"checkpointable: {type(trainer.strategy).__name__} saves in shards, which is not supported yet."
            " Lightning's own checkpointing stays as it is."
        )
        return False
    return True


def _attach_early_stopping(trainer: Trainer, session: Session) -> None:
    options = session.options
    for callback in trainer.early_stopping_callbacks:
        if getattr(callback, "_checkpointable_session", session) is not session:
            trainer_callbacks.detach(trainer, callback)  # ours, for a module that was fitted before
    if options.patience is None:
        return
    stopping = EarlyStopping(
        monitor=str(options.monitor),
        mode=options.mode,
        min_delta=options.min_delta,
        patience=options.patience,
        strict=not options.keeps_best,  # a monitor that is not logged is ours to report
        check_finite=False,  # NaN is no improvement, and no more than that
    )
    stopping._checkpointable_session = session  # type: ignore[attr-defined]  # whose it is
    if all(callback.state_key != stopping.state_key for callback in trainer_callbacks.callbacks(trainer)):
        trainer_callbacks.attach(trainer, stopping)
