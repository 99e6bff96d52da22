"""What is saved when an exception or a signal ends the training: the last consistent state, if it still is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_warn

from checkpointable._errors import CheckpointableWarning, SaveError
from checkpointable.lightning_internals import launched, signals
from checkpointable.policy.reasons import Reason
from checkpointable.saving import failures, on_rank_zero
from checkpointable.saving.session import Session

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def keep(trainer: Trainer, session: Session, exception: BaseException) -> None:
    """Keep the last consistent state if it is the present one, and say which file to resume from."""
    saver, interrupt = session.saver, session.interrupt
    if saver.store is None:  # the fit failed before its directory was opened
        return
    saver.wait_for_staging()
    session.history.exception = exception
    signals.set_exit_status(trainer, exception)
    if trainer.world_size == 1 or signals.is_stop(exception):  # other exceptions may be of one rank
        if not interrupt.pressed_again:
            with interrupt.cuts_short():
                _save_together(trainer, session, exception)
        if trainer.is_global_zero and not interrupt.pressed_again:
            _wait_for_copies(session, exception)
        saver.close()
    elif not interrupt.pressed_again:
        saver.wait_for_file()
    if interrupt.pressed_again:
        saver.abandon()
        launched.kill(trainer)
    session.progress.steps.unguard()  # also where no result was collected
    failures.say_where_to_resume(exception, saver, session.progress.position)
    launched.end_hung(trainer, exception)
    with failures.as_warnings("the job was not requeued", exception):
        signals.requeue(trainer, exception)
    if session.validation.stop is not None and trainer.is_global_zero:
        session.validation.stop.leave()


def _wait_for_copies(session: Session, exception: BaseException) -> None:
    """With a ``fast_dirpath``: wait until the last state is in ``dirpath``, too."""
    with session.interrupt.cuts_short(), failures.as_warnings("checkpoints were not copied to dirpath", exception):
        missing = session.saver.finish()
        if missing is not None:
            raise SaveError(missing)


def _save_together(trainer: Trainer, session: Session, exception: BaseException) -> None:
    """Save with all ranks; on rank 0 alone where a validation is cut short, which no collective can interrupt."""
    stop = session.validation.stop
    if stop is None:
        _save(trainer, session, exception)
    elif trainer.is_global_zero:
        with on_rank_zero.alone():
            _save(trainer, session, exception)
    else:
        stop.wait_for_save(session.options.save_timeout)


def _save(trainer: Trainer, session: Session, exception: BaseException) -> None:
    """Finish the save that is in progress, and save the last state if it is consistent."""
    with failures.as_warnings("the save that was in progress failed", exception):
        session.collect(trainer, wait=True, final=True)
    if session.validation.before is not None and signals.is_stop(exception):
        kept = session.validation.before.return_to(trainer)
        if kept is None:
            rank_zero_warn(
                "the validation has changed weights or buffers that earlier ones left as they were, so the state before"
                " it is not saved.",
                category=CheckpointableWarning,
            )
            return
        session.progress = kept
    progress = session.progress
    if session.options.save_on_exception and progress.is_consistent and not isinstance(exception, SaveError):
        session.due.reasons.add(Reason.EXCEPTION)
        with failures.as_warnings(f"the state after {progress.position} was not saved", exception):
            session.save(trainer, final=True)
