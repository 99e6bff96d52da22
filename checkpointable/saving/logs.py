"""One run in every logger: a fit that resumes goes on in the log of its run, from the step that it resumes at.

A log is continued where the newest checkpoint of the run is resumed. A branch from an older one gets a log of its own,
unless the user has chosen the earlier one, and that can be cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_info

from checkpointable.lightning_internals import logged, loggers
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.log import Log
from checkpointable.policy.log_state import LogState
from checkpointable.policy.options import Options
from checkpointable.saving import foreseen

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Logs:
    """The logs of one fit that go on where those of the resumed run were.

    Attributes:
        resumed: Where the run was logged, by the checkpoint that was read. It may be another one than was foreseen.
    """

    def __init__(self) -> None:
        self.resumed: Sequence[LogState] = ()
        self._going_on: list[tuple[Log, LogState]] = []

    def prepare(self, trainer: Trainer, options: Options) -> None:
        """On rank 0, before the loggers are opened: let them find the log of the run that will be resumed.

        Where they are open already, it must be their own.
        """
        self._going_on = []
        fits = internals.is_fitting(trainer) and not internals.fast_dev_run(trainer)
        candidates = loggers.logs(trainer) if fits and trainer.is_global_zero else []
        file = foreseen.find(trainer, options) if candidates else None
        if file is None:
            return
        found, rest = [], list(file.metadata.loggers)
        for log in candidates:
            saved = next((it for it in rest if it.logger == log.name and log.has(it, file.path)), None)
            if saved is not None:
                rest.remove(saved)
                found.append((log, saved))
        if found:
            self._go_on(trainer, found, file, is_newest=foreseen.is_newest(file, options))

    def _go_on(
        self, trainer: Trainer, found: Sequence[tuple[Log, LogState]], file: foreseen.Foreseen, *, is_newest: bool
    ) -> None:
        opening = {log for log, _ in found if not log.is_open}
        for log, saved in found:
            if is_newest or (log.can_cut and log.chosen is not None):
                log.go_on(saved, trainer)
                self._going_on.append((log, saved))
        going_on = [log for log, _ in self._going_on]
        if opening.intersection(going_on):
            places = ", ".join(log.where for log in going_on if log in opening)
            rank_zero_info(f"checkpointable: logging goes on: {places}.")
        left = [log for log, _ in found if log in opening and log not in going_on]
        for log in [log for log in left if log.chosen is not None]:
            left.remove(log)
            rank_zero_info(
                f"checkpointable: {file.path} is not the newest checkpoint of its run, and {log.name} keeps what came"
                " after it in the run that you chose: its steps are logged again there."
            )
        if left:
            names = ", ".join(log.name for log in left)
            rank_zero_info(
                f"checkpointable: {file.path} is not the newest checkpoint of its run, so this branch gets a log of its"
                f" own: {names}."
            )

    def before_epoch(self, trainer: Trainer, *, validates_first: bool) -> None:
        """Before the hooks of the first epoch: cut the logs to what was logged when the checkpoint was made."""
        going_on, self._going_on = self._going_on, []
        resumed = {(it.logger, it.place, it.id): it for it in self.resumed}
        for log in loggers.logs(trainer) if trainer.is_global_zero else []:
            if log.is_open:
                log.watch()
        step = logged.next_step(trainer) + validates_first  # that of the validation is logged already
        for log, saved in going_on if trainer.is_global_zero else []:
            key = (saved.logger, saved.place, saved.id)
            if key in resumed:
                log.before_epoch(resumed[key], trainer, step)
            else:
                log.leave(trainer)
