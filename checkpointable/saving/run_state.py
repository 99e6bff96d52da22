"""The run's state in a checkpoint, under our own key: added when one is made, taken over when one is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from checkpointable._errors import CheckpointableWarning, ResumeError
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.as_builtin import as_builtin
from checkpointable.policy.names import KEY
from checkpointable.policy.position import Ended
from checkpointable.resume import from_script, parameter_names
from checkpointable.resume.restorer import Restorer
from checkpointable.resume.state import RunState
from checkpointable.saving.loadable import make_loadable
from checkpointable.saving.progress import describe
from checkpointable.saving.session import Session

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def add(session: Session, trainer: Trainer | None, checkpoint: dict[str, Any]) -> None:
    """Add the state to a checkpoint that is made, except to that of a finder's trial."""
    make_loadable(checkpoint)
    if trainer is not None and session.trial is None:
        session.progress.name_what_is_used(checkpoint)
        checkpoint[KEY] = _captured(session, trainer, checkpoint)


def take(session: Session, trainer: Trainer | None, checkpoint: dict[str, Any], module: type) -> None:
    """Take over the state of a checkpoint that is loaded for a module of this class.

    Raises:
        ResumeError: If a fit shall resume from a file that holds weights only, or, with ``strict_resume``, from one
            without that state.
    """
    if session.trial is not None or (trainer is not None and not internals.is_fitting(trainer)):
        return  # a finder's trial, validate, test and predict leave the session unchanged
    if trainer is not None and "optimizer_states" not in checkpoint:
        raise ResumeError(
            f"cannot resume from {trainer.ckpt_path}: it holds weights only (save_weights_only). Start a new run with"
            f" {module.__name__}.load_from_checkpoint(...), or resume from another file: checkpointable.latest(...)"
            " returns the newest that can be resumed from."
        )
    if KEY in checkpoint:
        if trainer is None:
            _restore(session, checkpoint)
        else:
            if not trainer.lightning_module.strict_loading:
                parameter_names.leave_out_misfits(trainer.lightning_module, checkpoint)
            from_script.leave_out(trainer, checkpoint, session.options.script_parts)
            _restore(session, checkpoint, rank=trainer.global_rank, ended=internals.ended(checkpoint))
    elif trainer is not None:
        _without_state(session, trainer, checkpoint)


def _captured(session: Session, trainer: Trainer, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The value of our key; in a checkpoint that user code makes after the end of training, the state of the end."""
    request, weights_only, progress = session.request, "optimizer_states" not in checkpoint, session.progress
    if request is None and not weights_only and session.end is not None and session.end.is_unchanged(trainer):
        state = session.end.put_into(checkpoint)
    else:
        consistent = session.end is None and progress.is_consistent and not progress.is_fetching
        state = session.state(trainer, at_safe_point=request is not None or consistent, weights_only=weights_only)
    found, outcome = session.saver.resumed_from, session.recorder.outcome()
    metadata = describe(trainer, state, request, session.options, found, outcome, weights_only=weights_only)
    weights = "averaged" if trainer_callbacks.averaged_weights(trainer, checkpoint) else "current"
    return {**as_builtin(state), "metadata": replace(metadata, weights=weights).to_dict()}


def _restore(session: Session, checkpoint: dict[str, Any], *, rank: int = 0, ended: Ended | None = None) -> None:
    """Restore what ``_captured`` returned, for this rank.

    The run resumes there if Lightning's counters say what had just ended; otherwise only its numbers are restored.
    """
    state = RunState.from_dict(checkpoint[KEY])
    session.progress.take_over(state, resumes=ended is not None)
    session.resumes_after = state.ended
    session.monitor.logged_names.update(state.logged_names)
    session.due.take()
    parts, rank_state = session.options.script_parts, state.ranks[rank] if rank < len(state.ranks) else None
    session.restorer = Restorer() if ended is None else Restorer(state, rank_state, ended, checkpoint, parts)


def _without_state(session: Session, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    trainer_callbacks.forget_implicit_checkpoint(trainer, checkpoint)
    lacks = (
        f"{trainer.ckpt_path} was not written by checkpointable. Restored from it: what Lightning restores."
        " Not in it: best_val_loss, the checkpoints kept so far, randomness, and the position in the data."
    )
    if session.options.strict_resume:
        raise ResumeError(f"{lacks} To resume from it anyway, set strict_resume=False.")
    rank_zero_warn(lacks, category=CheckpointableWarning)
