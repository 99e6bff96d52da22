"""What is said when a save fails, and what is kept when an exception ends the training.

``fit`` raises that exception, so a save that fails then is a warning. If it were raised from within ``on_exception``,
it would replace the user's exception, and neither Lightning's teardown nor the other callbacks would learn of that.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from checkpointable._errors import CheckpointableWarning, SaveError
from checkpointable.policy.position import Position
from checkpointable.saving.interrupt import CtrlC
from checkpointable.saving.saver import Saver


def report(problem: str, position: Position, last_path: str, *, final: bool) -> None:
    """Say that the state after a position was not saved.

    Raises:
        SaveError: If it was the ``final`` save. Otherwise it is a warning, and training continues.
    """
    lost = f"the state after {position} was not saved: {problem.rstrip('.')}."
    if final:
        raise SaveError(f"{lost} Older checkpoints are untouched: {last_path or 'none'}.")
    rank_zero_warn(
        f"{lost} Training goes on, older checkpoints are untouched, and the next save tries again.",
        category=CheckpointableWarning,
    )


def keep_state(
    exception: BaseException,
    interrupt: CtrlC,
    position: Position,
    *,
    collect: Callable[[], None],
    save: Callable[[], None] | None,
) -> None:
    """Finish the save that is in progress, and save the present state. A second Ctrl-C ends the waiting.

    Args:
        exception: What ended the training.
        interrupt: Notes Ctrl-C.
        position: The last batch that is completely over.
        collect: Waits for the save in progress.
        save: Saves the present state; ``None`` if that is not wanted, or the state is not consistent.
    """
    with interrupt.cuts_short():
        with _warning("the save that was in progress failed", exception):
            collect()
        if save is not None:
            with _warning(f"the state after {position} was not saved", exception):
                save()


def say_where_to_resume(exception: BaseException, saver: Saver, position: Position) -> None:
    """Say which file to resume from."""
    path, saved = saver.kept.last_path, saver.kept.last_position
    if path or position.batches:
        advice = f"Resume from {path} ({saved})." if path else "Nothing was saved yet."
        waiting = "" if saver.is_idle else " A save is still in progress."
        rank_zero_info(f"checkpointable: {type(exception).__name__} after {position}. {advice}{waiting}")


@contextlib.contextmanager
def _warning(lost: str, exception: BaseException) -> Iterator[None]:
    try:
        yield
    except SaveError as error:  # it says what was not saved, on every rank
        rank_zero_warn(f"while {type(exception).__name__} ended the training, {error}", category=CheckpointableWarning)
    except Exception as error:  # noqa: BLE001  # the user's own exception matters more
        warnings.warn(
            f"while {type(exception).__name__} ended the training, {lost}: {type(error).__name__}: {error}",
            CheckpointableWarning,
            stacklevel=2,
        )
