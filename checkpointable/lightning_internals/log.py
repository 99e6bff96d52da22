"""One of the trainer's loggers, as far as a resume needs it: where it logs, and how it goes on in an earlier log.

Lightning opens a logger before the ``setup`` hooks, and most make a new log then. So a logger has to be told before
that where the run was logged.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from checkpointable.policy.log_state import LogState
from checkpointable.storage.paths import absolute, is_remote, join

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Log:
    """One logger of a trainer, as far as a resume needs it. Each subclass is for one class of Lightning.

    Attributes:
        name: That class.
        can_cut: Whether what was logged after the resumed checkpoint can be taken out of what is shown.
    """

    name: str
    can_cut = True

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    @property
    def is_open(self) -> bool:
        """Whether it logs already. In a process of another rank than 0, none does."""
        return self.logger._experiment is not None

    @property
    def chosen(self) -> int | str | None:
        """The id that the user chose; ``None`` if the logger finds one."""
        raise NotImplementedError

    def state(self) -> LogState:
        """Where it logs now; only called if it is open."""
        raise NotImplementedError

    def has(self, saved: LogState, resumed_from: str) -> bool:
        """Whether it would find this log, and the user has not chosen another one."""
        raise NotImplementedError

    def go_on(self, saved: LogState, trainer: Trainer) -> None:
        """Log on there. Nothing that is in the log is changed before the training begins."""
        raise NotImplementedError

    def watch(self) -> None:
        """Before the first epoch of any run: note from here on what a later resume needs to know of the log."""

    def before_epoch(self, saved: LogState, trainer: Trainer, step: int) -> None:
        """Before the first epoch of a run that goes on in the ``saved`` log: it will log from this step on."""

    def leave(self, trainer: Trainer) -> None:
        """The same, where another checkpoint was read than was foreseen, which knows nothing of this log."""

    @property
    def where(self) -> str:
        """Where it logs, in words."""
        return f"{self.name} in {self.logger.log_dir}"


class DirectoryLog(Log):
    """A logger that makes a directory for each version."""

    @property
    def chosen(self) -> int | str | None:
        """The version that the user chose."""
        version: int | str | None = self.logger._version
        of_job = isinstance(version, int) and str(version) == os.environ.get("SLURM_JOB_ID")
        return None if of_job else version  # Lightning gives that to the logger that it makes

    def state(self) -> LogState:
        """Its directory and version."""
        return LogState(logger=self.name, place=_absolute(self.logger.log_dir), id=self.logger.version)

    def has(self, saved: LogState, resumed_from: str) -> bool:
        """Whether its directory would be the same, or is that of the file."""
        if self.is_open:
            here = self.state()
            return (here.place, here.id) == (saved.place, saved.id)
        if self.chosen not in (None, saved.id):
            return False
        before, self.logger._version = self.logger._version, saved.id
        try:
            place = _absolute(self.logger.log_dir)
        finally:
            self.logger._version = before
        return place == saved.place or resumed_from.startswith(join(place, ""))  # both were moved

    def go_on(self, saved: LogState, trainer: Trainer) -> None:
        """Log to that version."""
        self.logger._version = saved.id


def _absolute(directory: str) -> str:
    place = absolute(directory)
    return place if is_remote(place) else os.path.realpath(place)
