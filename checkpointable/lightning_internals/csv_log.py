"""The log of a ``CSVLogger``: Lightning's deletes what is in its directory when it begins, this one goes on there."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from weakref import ref

from checkpointable.lightning_internals import loops
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.log import DirectoryLog
from checkpointable.lightning_internals.tree import Mixin, combined, find, put_before
from checkpointable.policy.log_state import LogState
from checkpointable.storage.commit import commit
from checkpointable.storage.paths import is_remote

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.loggers.csv_logs import ExperimentWriter
else:  # at run time, the base is that class in the tree of the logger
    ExperimentWriter = object


class CSVLog(DirectoryLog):
    """Its rows are cut back to those that were logged when the checkpoint was made, and new ones are appended."""

    name = "CSVLogger"

    def state(self) -> LogState:
        """Where it logs now. Its rows are counted from the first time on that this is asked for."""
        writer = self.logger.experiment
        if type(writer) is find(self.logger, "ExperimentWriter"):
            put_before(_CountingWriter, writer)
            writer.count()
        return replace(DirectoryLog.state(self), rows=getattr(writer, "rows", None))

    def go_on(self, saved: LogState, trainer: Trainer) -> None:
        """Give it a writer that appends."""
        DirectoryLog.go_on(self, saved, trainer)
        if not self.is_open:
            made: Any = combined(_CountingWriter, find(self.logger, "ExperimentWriter"))
            self.logger._experiment = made(log_dir=self.logger.log_dir)
        writer = self.logger.experiment
        if isinstance(writer, _CountingWriter):
            writer.go_on(saved.rows, trainer)

    def before_epoch(self, saved: LogState, trainer: Trainer, step: int) -> None:
        """The rows are cut as soon as a batch is trained."""
        writer = self.logger.experiment
        if isinstance(writer, _CountingWriter):
            writer.before_epoch(saved.rows, trainer)

    def leave(self, trainer: Trainer) -> None:
        """Append to all that is there."""
        writer = self.logger.experiment
        if isinstance(writer, _CountingWriter):
            writer.before_epoch(None, trainer)


class Rows:
    """The text of a file, in lines, and where its header and each of its rows end. A torn last row is none."""

    def __init__(self, text: str) -> None:
        self.lines = list(io.StringIO(text, newline=""))
        reader = csv.reader(self.lines)
        self.header = next(reader, [])
        self.start = reader.line_num
        self.ends = [reader.line_num for _ in reader]
        if self.ends and not text.endswith("\n"):
            self.ends.pop()

    def cut(self, rows: int) -> tuple[str, str]:
        """The text with so many rows, and the text with all others, which is empty if there are none."""
        end = [self.start, *self.ends][min(rows, len(self.ends))]
        rest = self.lines[end:]
        return "".join(self.lines[:end]), "".join([*self.lines[: self.start], *rest] if rest else [])


class _CountingWriter(Mixin, ExperimentWriter):
    """Counts rows. In a run that goes on, it keeps new ones until a batch is trained, and cuts the file before them.

    Attributes:
        rows: How many the log has.
    """

    rows = 0
    _stay: int | None = None  # so many, once a batch is trained
    _trainer: Callable[[], Trainer | None] = type(None)  # called as a dead reference is, it gives None
    _trained: int | None = None  # batches, before the first epoch
    _may_end = False  # where no session hears of the trainer any more

    def count(self) -> None:
        """Count the rows that are logged so far."""
        self.rows = len(self._read().ends) + len(self.metrics)

    def go_on(self, rows: int | None, trainer: Trainer) -> None:
        """Go on after so many rows."""
        if self._stay is None:
            self.save()  # what was logged before
        found = self._read()
        self._stay = len(found.ends) if rows is None else min(rows, len(found.ends))
        self.metrics_keys, self.rows = found.header, self._stay + len(self.metrics)
        self._trainer, self._trained, self._may_end = ref(trainer), None, loops.is_observed(trainer)

    def before_epoch(self, rows: int | None, trainer: Trainer) -> None:
        """Before the first epoch of the run that goes on, in which so many rows stay."""
        self.go_on(rows, trainer)
        self._trained = _batches(trainer)

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics_dict, step)
        self.rows += 1

    def save(self) -> None:
        trainer = self._trainer()
        if self._stay is not None and self.metrics:
            runs = trainer is not None and trainer.state.status == "running" and internals.is_fitting(trainer)
            if trainer is not None and runs and self._waits(trainer):
                return
            self._begin(self._stay, cuts=runs)
        super().save()

    def _waits(self, trainer: Trainer) -> bool:
        """Whether no batch is trained yet, and one may be."""
        has_ended = self._may_end and not loops.is_observed(trainer)
        return not has_ended and (self._trained is None or _batches(trainer) == self._trained)

    def _begin(self, stay: int, *, cuts: bool) -> None:
        """Cut the file, and put what is cut beside it; not in a fit that failed before it had trained a batch."""
        kept, cut = self._read().cut(stay)
        if cuts and cut:
            names = (f"{self.metrics_file_path}.cut-{number}" for number in itertools.count(1))
            self._write(next(name for name in names if not self._fs.exists(name)), cut)
            self._write(self.metrics_file_path, kept)
        self._stay = None
        self.count()

    def _read(self) -> Rows:
        if not self._fs.isfile(self.metrics_file_path):
            return Rows("")
        with self._fs.open(self.metrics_file_path, "rb") as file:
            return Rows(file.read().decode(errors="surrogateescape"))

    def _write(self, path: str, text: str) -> None:
        encoded = text.encode(errors="surrogateescape")
        if is_remote(path):
            with self._fs.open(path, "wb") as file:
                file.write(encoded)
        else:
            commit(Path(path), partial(_put, encoded), problem=lambda _: None, overwrite=True)

    def _check_log_dir_exists(self) -> None:
        """Lightning deletes what is there."""

    def __getstate__(self) -> dict[str, Any]:
        """Without the trainer."""
        return {name: value for name, value in vars(self).items() if name != "_trainer"}


def _batches(trainer: Trainer) -> int:
    """How many batches are trained."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.completed)


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)
