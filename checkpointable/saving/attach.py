"""Attaches a session to a trainer that is about to fit, validate, test or predict."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from checkpointable._errors import CheckpointableWarning
from checkpointable.lightning_internals import (
    averaging,
    connector,
    finders,
    loops,
    model_parallel,
    progress_bars,
    sources,
)
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.checkpoint_io import DurableCheckpointIO
from checkpointable.lightning_internals.tree import check, combined, find, refuse_mixture
from checkpointable.resume import module_state
from checkpointable.resume.reading import ResumingCheckpointIO
from checkpointable.resume.restorer import Restorer
from checkpointable.saving import agreement, verified
from checkpointable.saving.callback import CheckpointingCallback
from checkpointable.saving.run_attributes import RunAttributes
from checkpointable.saving.session import Session

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def attach(trainer: Trainer, session: Session, *, by_callback: bool = False) -> None:
    """Let this session save in a trainer that is about to fit; prepare it also to validate, test or predict.

    ``by_callback``: whether the trainer itself has asked for it, by a callback of the user.
    """
    check(trainer)
    theirs = [it for it in trainer_callbacks.callbacks(trainer) if not isinstance(it, RunAttributes)]
    refuse_mixture(trainer, [*theirs, *internals.checkpoint_ios(trainer)])
    internals.install_checkpoint_io(trainer, ResumingCheckpointIO)
    trainer_callbacks.mark_implicit_checkpoint(trainer)
    if not internals.is_fitting(trainer):
        connector.load_with(trainer, verified.load)
        return
    attached = next((c for c in trainer_callbacks.callbacks(trainer) if isinstance(c, CheckpointingCallback)), None)
    if attached is None or attached.session is not session or not internals.has_trained_before(trainer):
        session.begin()
        session.progress.initial_modes = module_state.capture_modes(trainer.lightning_module)
    session.progress.is_consistent = False  # also after an earlier fit
    session.resumes_after = session.end = None
    session.validation.over()
    session.validates_first = False
    session.restorer = Restorer()
    session.due.take()
    connector.load_with(trainer, partial(agreement.load, session.options))
    loops.observe(trainer, session)
    session.logs.prepare(trainer, session.options)
    finders.observe(trainer)
    averaging.prepare_for_end(trainer)
    sources.observe(trainer)
    _attach_early_stopping(trainer, session)
    if not session.options.saves_anything or not _may_save(trainer, session, by_callback=by_callback):
        return
    replaced = attached.replaced if attached is not None else trainer_callbacks.take_implicit_checkpoint(trainer)
    if attached is not None:
        trainer_callbacks.detach(trainer, attached)
    ours = combined(CheckpointingCallback, find(trainer, "ModelCheckpoint"))
    trainer_callbacks.attach(trainer, ours(session, replaced), first_checkpoint=True)
    progress_bars.observe(trainer, session.saver)


def _may_save(trainer: Trainer, session: Session, *, by_callback: bool) -> bool:
    if not trainer.checkpoint_callbacks:
        said = "checkpointable: Trainer(enable_checkpointing=False), so nothing is saved."
        if by_callback and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set where mypy does not look
            rank_zero_warn(
                f"{said} The callback Checkpointing needs enable_checkpointing=True.", category=CheckpointableWarning
            )
        else:
            rank_zero_info(said)
        return False
    io = internals.base_checkpoint_io(trainer)
    if not isinstance(io, DurableCheckpointIO):
        rank_zero_info(
            f"checkpointable: {type(io).__name__} writes the files, so they have no metadata of checkpointable:"
            " latest() and best() do not find them, and none of them is deleted."
        )
    if not internals.saves_whole_files(trainer) and not model_parallel.parts_model(trainer):
        rank_zero_info(
            f"checkpointable: {type(trainer.strategy).__name__} saves in its own way, which is not supported yet."
            " Lightning's own checkpointing is unchanged."
        )
        return False
    if session.options.save_trainable_only and model_parallel.parts_model(trainer):
        rank_zero_info(
            f"checkpointable: save_trainable_only does nothing with {type(trainer.strategy).__name__}: the frozen part"
            " is saved as well."
        )
    return True


def _attach_early_stopping(trainer: Trainer, session: Session) -> None:
    options = session.options
    for callback in trainer.early_stopping_callbacks:
        if getattr(callback, "_checkpointable_session", session) is not session:
            trainer_callbacks.detach(trainer, callback)  # added by us for a module that was fitted before
    if options.patience is None:
        return
    stopping = find(trainer, "EarlyStopping")(
        monitor=str(options.monitor),
        mode=options.mode,
        min_delta=options.min_delta,
        patience=options.patience,
        strict=not options.keeps_best,  # where best checkpoints are kept, the session reports a missing monitor
        check_finite=False,  # NaN counts as no improvement, and does not stop the training
    )
    stopping._checkpointable_session = session  # marks it as ours
    if all(callback.state_key != stopping.state_key for callback in trainer_callbacks.callbacks(trainer)):
        trainer_callbacks.attach(trainer, stopping)
