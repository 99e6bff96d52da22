"""An exception ends the training: the last consistent state is kept, and that exception stays the one that is raised.

So what fails here is a warning: raised from within ``on_exception``, it would take the place of the user's exception,
and neither Lightning's teardown nor the other callbacks would hear of that.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from checkpointable._errors import CheckpointableWarning, SaveError
from checkpointable.policy.position import Position
from checkpointable.saving.interrupt import CtrlC
from checkpointable.saving.scheduler import Desk

if TYPE_CHECKING:
    from checkpointable.saving.callback import CheckpointingCallback


def leave(
    trainer: Trainer,
    callback: CheckpointingCallback | None,
    desk: Desk,
    ctrl_c: CtrlC,
    position: Position,
    exception: BaseException,
    *,
    whole: bool,
) -> None:
    """Finish the save that is under way, and save the present state; then say which file to go on from.

    Args:
        trainer: Of the training.
        callback: Ours.
        desk: Where its orders go.
        ctrl_c: A second Ctrl-C, before or now, ends the waiting; nothing is begun after it.
        position: The last batch that is wholly over.
        exception: What ended the training.
        whole: Whether the present state is that of ``position``.
    """
    if trainer.world_size == 1 or isinstance(exception, SIGTERMException):  # else the other ranks may not be here
        if not ctrl_c.again:
            with ctrl_c.cuts_short():
                with _warning("the save that was under way failed", exception):
                    desk.settle(trainer, callback, wait=True, final=True)
                if whole and desk.options.save_on_exception and not isinstance(exception, SaveError):
                    desk.due.add("exception")
                    with _warning(f"the state after {position} was not saved", exception):
                        desk.save(trainer, callback, position, final=True)
        desk.saver.close()
    if desk.saver.shelf.last_path or position.batches:
        rank_zero_info(f"checkpointable: {type(exception).__name__} after {position}. {_advice(desk)}")


@contextlib.contextmanager
def _warning(lost: str, exception: BaseException) -> Iterator[None]:
    try:
        yield
    except SaveError as error:  # says itself what was not saved, on every rank
        rank_zero_warn(f"while {type(exception).__name__} ended the training, {error}", category=CheckpointableWarning)
    except Exception as error:  # noqa: BLE001  # whatever it is, the user's own exception matters more
        warnings.warn(
            f"while {type(exception).__name__} ended the training, {lost}: {type(error).__name__}: {error}",
            CheckpointableWarning,
            stacklevel=2,
        )


def _advice(desk: Desk) -> str:
    shelf = desk.saver.shelf
    at = "" if shelf.saved is None else f" ({shelf.saved})"
    advice = f"Go on from {shelf.last_path}{at}." if shelf.last_path else "Nothing was saved yet."
    return advice if desk.saver.is_idle else f"{advice} A save is still under way."
