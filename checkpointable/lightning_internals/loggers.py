"""The trainer's loggers that go on in the log of a run that is resumed. Those of other classes are left as they are."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from inspect import getattr_static
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals.csv_log import CSVLog
from checkpointable.lightning_internals.log import DirectoryLog, Log
from checkpointable.lightning_internals.mlflow_log import MLFlowLog
from checkpointable.lightning_internals.names import OF_LOGGERS
from checkpointable.lightning_internals.tree import Mixin, find, is_a, put_before
from checkpointable.policy.log_state import LogState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_EVENTS = "tensorboard.compat.proto.event_pb2"


class TensorBoardLog(DirectoryLog):
    """Viewers drop what was logged from a step on, where a later writer says that it begins there."""

    name = "TensorBoardLogger"

    def watch(self) -> None:
        """Note the steps at which it logs."""
        writer = getattr(self.logger.experiment, "file_writer", None)
        if writer is not None:
            put_before(_CountingWriter, writer)

    def state(self) -> LogState:
        """Its directory and version, and the highest step so far."""
        writer = getattr(self.logger.experiment, "file_writer", None)
        return replace(
            DirectoryLog.state(self), step=writer.highest_step if isinstance(writer, _CountingWriter) else None
        )

    def before_epoch(self, saved: LogState, trainer: Trainer, step: int) -> None:
        """Write what a ``SummaryWriter`` writes if it is made with a ``purge_step``, unless the user gave one.

        At that time the step is not known: another file may be resumed than was given, as that one is damaged.
        """
        writer = self.logger.experiment
        if isinstance(writer.file_writer, _CountingWriter):
            writer.file_writer.highest_step = saved.step
        if self.logger._kwargs.get("purge_step") is not None:
            return
        if saved.step is not None:
            step = max(step, saved.step + 1)  # user code may count in another way: what it has logged stays
        of_tensorboardx = type(writer).__module__.startswith("tensorboardX")
        events = import_module("tensorboardX.proto.event_pb2" if of_tensorboardx else _EVENTS)
        start = events.SessionLog(status=events.SessionLog.START)
        writer.file_writer.add_event(events.Event(step=step, session_log=start))


class _CountingWriter(Mixin):
    """Put before the writer of event files: knows the highest step that it was given."""

    highest_step: int | None = None

    def add_event(self, event: Any, step: int | None = None, walltime: float | None = None) -> None:
        if step is not None:
            self.highest_step = int(step) if self.highest_step is None else max(self.highest_step, int(step))
        writer: Any = super()  # a class of TensorBoard's
        writer.add_event(event, step, walltime)


class WandbLog(Log):
    """The service goes on with a run that has the same id."""

    name = "WandbLogger"
    can_cut = False

    @property
    def chosen(self) -> int | str | None:
        """The run that the user chose."""
        return None if self.logger._id is None else str(self.logger._id)

    def state(self) -> LogState:
        """Its run."""
        return LogState(logger=self.name, place=str(self.logger.name), id=str(self.logger.version))

    def has(self, saved: LogState, resumed_from: str) -> bool:
        """Whether it would make a run of its own in the same project."""
        if self.is_open:
            return self.state() == saved
        running = getattr(sys.modules.get("wandb"), "run", None)  # the logger would log to that one
        options: Mapping[str, Any] = self.logger._wandb_init
        may = running is None and options.get("resume") in ("allow", "must", True)
        return may and self.chosen in (None, saved.id) and str(self.logger.name) == saved.place

    def go_on(self, saved: LogState, trainer: Trainer) -> None:
        """Log to that run."""
        self.logger._id = self.logger._wandb_init["id"] = saved.id

    @property
    def where(self) -> str:
        """Its run, in words."""
        return f"{self.name} in run {self.chosen} (W&B keeps what it was sent after that checkpoint)"


KINDS: tuple[type[Log], ...] = (CSVLog, TensorBoardLog, MLFlowLog, WandbLog)


def logs(trainer: Trainer) -> list[Log]:
    """The trainer's loggers that can log on."""
    found = []
    for logger in trainer.loggers:
        kind = next((kind for kind in KINDS if is_a(logger, kind.name)), None)
        if kind is not None and _has_all_names(logger, kind.name):
            found.append(kind(logger))
    return found


def states(trainer: Trainer) -> tuple[LogState, ...]:
    """Where the trainer's loggers log now."""
    return tuple(log.state() for log in logs(trainer) if log.is_open)


def _has_all_names(logger: Any, name: str) -> bool:
    """Whether it has what is needed here; a class of the user's own may work in another way."""
    try:
        for attribute in OF_LOGGERS[name]:
            getattr_static(logger, attribute)
    except AttributeError:
        return False
    return type(logger).experiment is find(logger, name).experiment
