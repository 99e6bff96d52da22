"""The run's state in a checkpoint, under our own key: added when one is made, taken over when one is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from checkpointable._errors import CheckpointableWarning, ResumeError
from checkpointable.lightning_internals import averaging
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.as_builtin import as_builtin
from checkpointable.policy.names import HISTORY_KEY, KEY
from checkpointable.policy.position import Ended
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume import from_script, frozen_part, parameter_names, rank_states, shards
from checkpointable.resume.restorer import Restorer
from checkpointable.resume.state import RunState
from checkpointable.saving.loadable import make_loadable
from checkpointable.saving.measured import Measured
from checkpointable.saving.progress import describe
from checkpointable.saving.session import Session

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


def add(session: Session, trainer: Trainer | None, checkpoint: dict[str, Any]) -> None:
    """Add the state to a checkpoint that is made, except to that of a finder's trial."""
    make_loadable(checkpoint)
    if trainer is not None and session.trial is None:
        session.progress.name_what_is_used(checkpoint)
        checkpoint[KEY] = _captured(session, trainer, checkpoint)


def take(session: Session, trainer: Trainer | None, checkpoint: dict[str, Any], module: LightningModule) -> None:
    """Take over the state of a checkpoint that is loaded for this module.

    Raises:
        ResumeError: If a fit shall resume from a file that holds weights only, or, with ``strict_resume``, from one
            without that state.
    """
    verdicts = _bring_frozen_part(session, trainer, checkpoint, module)
    if session.trial is not None or (trainer is not None and not internals.is_fitting(trainer)):
        return  # a finder's trial, validate, test and predict leave the session unchanged
    if trainer is not None and shards.holds_weights_only(checkpoint):
        raise ResumeError(
            f"cannot resume from {trainer.ckpt_path}: it holds weights only (save_weights_only). Start a new run with"
            f" {type(module).__name__}.load_from_checkpoint(...), or resume from another file:"
            " checkpointable.latest(...) returns the newest that can be resumed from."
        )
    if KEY in checkpoint:
        if trainer is None:
            _restore(session, checkpoint)
        else:
            shards.refuse_parts(trainer.ckpt_path, checkpoint, session.options.script_parts)
            if not trainer.lightning_module.strict_loading and not shards.in_shards(checkpoint):
                parameter_names.leave_out_misfits(trainer.lightning_module, checkpoint)
            from_script.leave_out(trainer, checkpoint, session.options.script_parts)
            _restore(
                session,
                checkpoint,
                rank=(trainer.global_rank, trainer.world_size),
                ended=internals.ended(checkpoint),
                verdicts=verdicts,
            )
            session.restorer.on_loaded(trainer)
    elif trainer is not None:
        _without_state(session, trainer, checkpoint)


def _captured(session: Session, trainer: Trainer, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The value of our key; in a checkpoint that user code makes after the end of training, the state of the end."""
    request, weights_only, progress = session.request, shards.holds_weights_only(checkpoint), session.progress
    if request is None and not weights_only and session.end is not None and session.end.is_unchanged(trainer):
        state = session.end.put_into(checkpoint)
    elif request is not None and session.validation.before is not None:
        state = session.validation.before.put_into(checkpoint)
    else:
        consistent = session.end is None and progress.is_consistent and not progress.is_fetching
        state = session.state(trainer, at_safe_point=request is not None or consistent, weights_only=weights_only)
    weights = averaging.which_copy(trainer, checkpoint)
    if session.options.save_trainable_only and internals.saves_whole_files(trainer):
        state = replace(state, left_out=progress.frozen_part.leave_out(trainer.lightning_module, checkpoint))
    outcome = session.recorder.outcome()
    metadata = describe(
        trainer,
        state,
        request,
        session.options,
        session.saver.resumed_from,
        outcome,
        metrics=session.measured.metrics(trainer, state.position),
        weights_only=weights_only,
    )
    if request is not None:
        session.history.captured_at = metadata.created
    interrupted = session.interrupt.pressed
    history = session.history.text(trainer, state.position, session.restorer, outcome, interrupted=interrupted)
    told = {} if history is None else {HISTORY_KEY: history}
    return {**as_builtin(state), "metadata": replace(metadata, weights=weights).to_dict(), **told}


def _bring_frozen_part(
    session: Session, trainer: Trainer | None, checkpoint: dict[str, Any], module: LightningModule
) -> list[Verdict]:
    """Complete a checkpoint that was saved without its frozen part, and warn if that of the module is another one."""
    resumes = trainer is not None and internals.is_fitting(trainer)
    if resumes and session.options.save_trainable_only and "state_dict" in checkpoint:
        trained = checkpoint.get("current_model_state", checkpoint["state_dict"])  # the other one is an average
        session.progress.frozen_part.note_loaded(module, trained)
    verdict = frozen_part.bring(module, checkpoint)
    if verdict is None:
        return []
    if verdict.level != Level.EXACT and not (resumes and session.options.strict_resume):  # which refuses it
        path = "the checkpoint" if trainer is None else trainer.ckpt_path
        rank_zero_warn(
            f"{path} was saved with save_trainable_only=True, and {type(module).__name__} brings another frozen part"
            f" than it was trained with, which is used: {verdict}. Give the module the frozen weights it had then.",
            category=CheckpointableWarning,
        )
    return [verdict]


def _restore(
    session: Session,
    checkpoint: dict[str, Any],
    *,
    rank: tuple[int, int] = (0, 1),
    ended: Ended | None = None,
    verdicts: Sequence[Verdict] = (),
) -> None:
    """Restore what ``_captured`` returned, for this rank of so many. ``verdicts``: on what is restored already.

    The run resumes there if Lightning's counters say what had just ended; otherwise only its numbers are restored.
    """
    state = RunState.from_dict(checkpoint[KEY])
    session.progress.take_over(state, resumes=ended is not None)
    session.resumes_after, session.validates_first = state.ended, state.before_validation
    session.logs.resumed = state.loggers
    session.monitor.logged_names.update(state.logged_names)
    session.measured = Measured(state.position, checkpoint[KEY]["metadata"]["metrics"])
    session.due.take()
    parts, rank_state = session.options.script_parts, rank_states.for_rank(state, *rank)
    session.restorer = Restorer() if ended is None else Restorer(state, rank_state, ended, checkpoint, parts, verdicts)


def _without_state(session: Session, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    trainer_callbacks.forget_implicit_checkpoint(trainer, checkpoint)
    lacks = (
        f"{trainer.ckpt_path} was not written by checkpointable. Restored from it: what Lightning restores."
        " Not in it: best_val_loss, the checkpoints kept so far, randomness, and the position in the data."
    )
    if session.options.strict_resume:
        raise ResumeError(f"{lacks} To resume from it anyway, set strict_resume=False.")
    rank_zero_warn(lacks, category=CheckpointableWarning)
