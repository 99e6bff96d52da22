"""The history of a run as one fit adds to it, and its text for a file.

Each part is encoded once, when it is first written, so that a save only joins texts: the training thread does that in
less time than it takes to hand it over, and the size of the file is known at once. Only rank 0 has a history.
"""

from __future__ import annotations

import socket
import sys
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from checkpointable._errors import CheckpointableWarning, CheckpointFileError
from checkpointable.catalog.history import read_history, with_ends
from checkpointable.catalog.info import Confirmation
from checkpointable.catalog.traces import End
from checkpointable.lightning_internals import loops, signals
from checkpointable.policy.as_builtin import as_builtin
from checkpointable.policy.bounded_history import MOST_BYTES, Part, bounded, cut, shortened, with_few_metrics
from checkpointable.policy.history import History, Point, SavedPoint, SessionRecord
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.policy.secrets import without_secrets, without_secrets_in
from checkpointable.policy.verdict import Level, exactness
from checkpointable.resume.restorer import Restorer
from checkpointable.saving import repository
from checkpointable.saving.progress import Progress
from checkpointable.storage.format.archive import encode

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_OTHERWISE = (Level.FROM_FILE, Level.FROM_SCRIPT, Level.ASKED)
_LISTS = ("points", "saves", "sessions")
_OF_LISTS = 100  # bytes of what stands around them


class RunHistory:
    """What the files of one fit tell of its run.

    Attributes:
        exception: What has ended the fit, if it was an exception or a signal.
        captured_at: When the state for the save in progress was captured, in seconds since the epoch of Unix time.
    """

    def __init__(self) -> None:
        self.exception: BaseException | None = None
        self.captured_at = 0.0
        self._before = History(monitor=None, mode=None)  # all but the present session
        self._present: SessionRecord | None = None
        self._repository = repository.Repository()
        self._texts: dict[int, tuple[Part, str]] = {}

    def open(
        self,
        trainer: Trainer,
        options: Options,
        progress: Progress,
        resumed_from: str | None,
        ends: Callable[[], Mapping[str, End]],
    ) -> None:
        """On rank 0, once the directory is found: take over the history of the file resumed from, and begin a session.

        A further fit of the same run goes on with what is known. ``ends`` gives what ended attempts whose files do not
        tell it.
        """
        if not trainer.is_global_zero:
            return
        if resumed_from is not None:
            self._before = _read(resumed_from)
        elif self._present is not None:
            self._before = replace(self._before, sessions=(*self._before.sessions, self._present))
        if self._before.sessions:
            self._before = with_ends(self._before, ends())
        self._before = replace(self._before, monitor=options.monitor, mode=options.mode)
        self.exception, self._repository = None, repository.of_script()
        now = time.time()
        self._present = SessionRecord(
            attempt=progress.lineage.attempt,
            generation=progress.lineage.generation,
            started=now,
            begins=progress.position,
            resumed_from=resumed_from,
            command=without_secrets(sys.argv),
            commit=None,
            is_dirty=None,
            host=socket.gethostname(),
            last_seen=now,
            ends=progress.position,
        )

    def note_point(self, position: Position, names: Collection[str], values: Mapping[str, Any], ended: str) -> None:
        """Note what a validation or an epoch has measured: the scalars among these values that have these names."""
        if self._present is None:
            return
        metrics = {name: float(values[name]) for name in sorted(names) if name in values and values[name].numel() == 1}
        if metrics:
            point = with_few_metrics(Point(position=position, metrics=metrics, ended=ended), self._before.monitor)
            earlier = self._before.points
            others = (it for it in earlier[-2:] if (it.position, it.ended) != (position, ended))
            left_out = max(self._before.metrics_left_out, len(metrics) - len(point.metrics))
            self._add(points=(*earlier[:-2], *others, point), metrics_left_out=left_out)

    def note_saved(self, saved: SavedPoint) -> None:
        """Note a file that is on disk, and what it has cost."""
        if self._present is not None:
            self._add(saves=(*self._before.saves, saved))

    def text(
        self,
        trainer: Trainer,
        position: Position,
        restorer: Restorer,
        confirmation: Confirmation | None,
        *,
        interrupted: bool,
    ) -> str | None:
        """The history for a file of this position, as JSON; ``None`` where there is none: on other ranks.

        ``interrupted``: Ctrl-C was pressed, and ends the fit at a safe point.
        """
        if self._present is None:
            return None
        ended = "Ctrl-C" if interrupted and self.exception is None else self.how_it_ends(trainer)
        self._present = present = self._described(position, restorer, confirmation, ended)
        whole = replace(self._before, sessions=(*self._before.sessions, present))
        begin = _begun(whole)
        room = MOST_BYTES - len(begin) - _OF_LISTS
        lists = self._lists(whole)
        if sum(map(len, lists)) > room:
            whole = bounded(whole, self._size, room)
            self._before = replace(whole, sessions=whole.sessions[:-1])
            begin = _begun(whole)
            kept = {id(part) for part in (*whole.points, *whole.saves, *whole.sessions)}
            self._texts = {key: encoded for key, encoded in self._texts.items() if key in kept}
            lists = self._lists(whole)
        self._texts.pop(id(present), None)  # the next file describes it anew
        return f"{begin}, {', '.join(lists)}}}"

    def _described(
        self, position: Position, restorer: Restorer, confirmation: Confirmation | None, ended: str | None
    ) -> SessionRecord:
        """The present session, up to a position."""
        assert self._present is not None
        known: dict[str, Any] = {
            "commit": self._repository.commit,
            "is_dirty": self._repository.is_dirty,
            "last_seen": time.time(),
            "ends": position,
            "ended": ended,
        }
        if restorer.resumes:
            known["begins"] = restorer.position or self._present.begins
            known["exactness"] = exactness(restorer.verdicts)
            known["changes"] = tuple(str(it) for it in restorer.verdicts if it.level in _OTHERWISE)
        if confirmation is not None:
            known["confirmed_batches"] = confirmation.batches
            known["first_difference"] = confirmation.first_difference
        return shortened(replace(self._present, **known))

    @property
    def session(self) -> float | None:
        """When the present session began; ``None`` on other ranks."""
        return None if self._present is None else self._present.started

    def how_it_ends(self, trainer: Trainer) -> str | None:
        """What ends the session, as ``SessionRecord.ended`` has it."""
        exception = self.exception
        if exception is None:
            return "finished" if loops.is_trained(trainer) else None
        if isinstance(exception, (KeyboardInterrupt, signals.Interrupted)):
            return "Ctrl-C"
        if signals.is_stop(exception):
            return "SIGTERM"
        first_line = without_secrets_in(_text_of(exception).partition("\n")[0])
        return cut(f"{type(exception).__name__}: {first_line}".removesuffix(": "))

    def _lists(self, history: History) -> list[str]:
        return [f'"{name}": [{", ".join(map(self._encoded, getattr(history, name)))}]' for name in _LISTS]

    def _add(self, **parts: Any) -> None:
        self._before = replace(self._before, **parts)

    def _size(self, part: Part) -> int:
        return len(self._encoded(part)) + len(", ")

    def _encoded(self, part: Part) -> str:
        known = self._texts.get(id(part))
        if known is None or known[0] is not part:
            known = self._texts[id(part)] = part, _text(as_builtin(part))
        return known[1]


def _text_of(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception:  # noqa: BLE001  # of the user's class: it must not hide the exception that it is asked about
        return ""


def _text(value: Mapping[str, Any]) -> str:
    return encode(value).decode()


def _begun(history: History) -> str:
    """The text of all but its lists, without the end."""
    header = as_builtin(replace(history, points=(), saves=(), sessions=()))
    return _text({name: value for name, value in header.items() if name not in _LISTS})[:-1]


def _read(path: str) -> History:
    """The history in the file that is resumed from. Without it the run goes on, so this is a warning."""
    try:
        found = read_history(path)
    except (CheckpointFileError, OSError) as error:
        warnings.warn(
            f"the history of the run cannot be read, so that of its next files begins here: {error}",
            CheckpointableWarning,
            stacklevel=2,
        )
        found = None
    return found or History(monitor=None, mode=None)
