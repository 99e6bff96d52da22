"""What the user reads when a save fails, and when an exception ends the training.

``fit`` raises that exception, so a save that fails then is a warning: raised from within ``on_exception``, it would
replace the user's exception, and skip Lightning's teardown and the other callbacks.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from checkpointable._errors import CheckpointableWarning, ResumeError, SaveError
from checkpointable.policy.position import Position
from checkpointable.saving.saver import Saver


def report(problem: str, position: Position, last_path: str, *, final: bool) -> None:
    """Warn that the state after a position was not saved; raise a ``SaveError`` if it was the ``final`` save."""
    lost = f"the state after {position} was not saved: {problem.rstrip('.')}."
    if final:
        raise SaveError(f"{lost} Older checkpoints are untouched: {last_path or 'none'}.")
    rank_zero_warn(
        f"{lost} Training continues, older checkpoints are untouched, and the next save tries again.",
        category=CheckpointableWarning,
    )


def say_where_to_resume(exception: BaseException, saver: Saver, position: Position) -> None:
    """Log which file to resume from; nothing if that is what the exception is about, or if nobody will resume."""
    if isinstance(exception, ResumeError) or _is_pruned(exception):
        return
    path, saved = saver.kept_on_disk.last_path, saver.kept_on_disk.last_position
    if path or position.batches:
        advice = f"Resume from {path} ({saved})." if path else "Nothing was saved yet."
        waiting = " A save is still in progress." if saver.is_writing else ""
        rank_zero_info(f"checkpointable: {type(exception).__name__} after {position}. {advice}{waiting}")


def _is_pruned(exception: BaseException) -> bool:
    """Whether it ends a trial of Optuna, as others are better. Optuna need not be installed."""
    return any(kind.__name__ == "TrialPruned" for kind in type(exception).__mro__)


@contextlib.contextmanager
def as_warnings(lost: str, exception: BaseException) -> Iterator[None]:
    """Turn errors in a save into warnings that name the exception which ended the training, and what is lost."""
    try:
        yield
    except SaveError as error:  # its text names what was not saved, and every rank has it
        rank_zero_warn(f"while {type(exception).__name__} ended the training, {error}", category=CheckpointableWarning)
    except Exception as error:  # noqa: BLE001  # the user's own exception matters more
        warnings.warn(
            f"while {type(exception).__name__} ended the training, {lost}: {type(error).__name__}: {error}",
            CheckpointableWarning,
            stacklevel=2,
        )
