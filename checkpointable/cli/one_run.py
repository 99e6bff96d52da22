"""One run as its files tell it: the curve of the monitored quantity, the sessions that trained it, where it stands."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

from checkpointable._errors import CheckpointFileError
from checkpointable.catalog import traces
from checkpointable.catalog.history import newest_history, with_ends
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.policy.history import MeasuredValue, SessionRecord
from checkpointable.policy.position import Position
from checkpointable.policy.reasons import Reason
from checkpointable.storage.paths import is_remote, parent

KILLED, RUNNING, FINISHED, UNKNOWN = "killed", "running", "finished", "no end noted"


@dataclass(frozen=True, kw_only=True)
class Session:
    """One call of ``fit``, as far as it is known.

    Attributes:
        number: Counted from 1 over all resumes of the run.
        started: When, in seconds since the epoch of Unix time; without a history, when its first file was saved.
        last_seen: When its latest file was saved.
        begins: Where it began to train; ``None`` if unknown.
        ends: Where its latest file stands.
        ended: What ended it, in words.
        record: All that the history tells of it; ``None`` for a file without one.
    """

    number: int
    started: float
    last_seen: float
    begins: Position | None
    ends: Position
    ended: str
    record: SessionRecord | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        run_id: The same over all its resumes.
        infos: Its checkpoints, newest last.
        monitor: The quantity that is compared; ``None`` if none is.
        mode: ``"min"`` or ``"max"``.
        curve: Its values, in order.
        sessions: In order.
        is_thinned: Whether some of the values that were measured are in no history any more.
        metrics_left_out: How many logged values had no room in the history at one position.
        history_problem: Why its history cannot be read; ``None`` if it can, or there is none.
        is_running: Whether a process on this machine trains it.
    """

    run_id: str
    infos: list[CheckpointInfo]
    monitor: str | None
    mode: str | None
    curve: list[MeasuredValue]
    sessions: list[Session]
    is_thinned: bool = False
    metrics_left_out: int = 0
    history_problem: str | None = None
    is_running: bool = False

    @property
    def newest(self) -> CheckpointInfo:
        """Its newest checkpoint."""
        return self.infos[-1]

    @property
    def state(self) -> str:
        """How its latest session ended, or that it is running."""
        return RUNNING if self.is_running else self.sessions[-1].ended

    @property
    def size(self) -> int:
        """Bytes of all its checkpoints."""
        return sum(info.size for info in self.infos)

    def best_value(self) -> MeasuredValue | None:
        """The first of the best values; NaN is never best."""
        values = [it for it in self.curve if not math.isnan(it.value)]
        sign = -1.0 if self.mode == "max" else 1.0
        return min(values, key=lambda it: sign * it.value, default=None)


def read_run(infos: Sequence[CheckpointInfo]) -> Run:
    """What the checkpoints of one run tell of it; ``infos`` are sorted, newest last."""
    infos = list(infos)
    found = traces.of_run(infos[-1].run_id, {parent(info.path) for info in infos if not is_remote(info.path)})
    told = newest_history(infos)
    problem = next((str(error) for error in told.problems.values() if isinstance(error, CheckpointFileError)), None)
    scored = next((info for info in reversed(infos) if info.score is not None), None)
    monitor, mode = (None, None) if scored is None else (scored.monitor, scored.mode)
    run = Run(
        run_id=infos[-1].run_id,
        infos=infos,
        monitor=monitor,
        mode=mode,
        curve=_scores(infos, monitor),
        sessions=_attempts(infos),
        history_problem=problem,
    )
    if told.history is None:
        return _with_state(run, found)
    history = with_ends(told.history, traces.ends_in(found))
    curve = [] if history.monitor is None else history.values_of(history.monitor)
    monitor, mode = (history.monitor, history.mode) if curve else (monitor, mode)
    known = replace(
        run,
        monitor=monitor,
        mode=mode,
        curve=curve or run.curve,
        sessions=_sessions(history.sessions) or run.sessions,
        is_thinned=history.points_left_out > 0,
        metrics_left_out=history.metrics_left_out,
    )
    return _with_state(known, found)


def _scores(infos: Sequence[CheckpointInfo], monitor: str | None) -> list[MeasuredValue]:
    """What is known without a history: the scores of files, which were measured on exactly their weights."""
    scored = {info.at: info.score for info in infos if info.score is not None and info.monitor == monitor}
    return [MeasuredValue(position, value) for position, value in sorted(scored.items())]


def _sessions(records: Sequence[SessionRecord]) -> list[Session]:
    """The sessions of a history. Older ones may have been thinned out; a second fit of a process is one more."""
    found: list[Session] = []
    for place, it in enumerate(records):
        following = records[place + 1 : place + 2]
        was_killed = bool(following) and following[0].attempt != it.attempt
        found.append(
            Session(
                number=max(it.generation, found[-1].number if found else 0) + 1,
                started=it.started,
                last_seen=it.last_seen,
                begins=it.begins,
                ends=it.ends,
                ended=it.ended or (KILLED if was_killed else UNKNOWN),
                record=it,
            )
        )
    return found


def _attempts(infos: Sequence[CheckpointInfo]) -> list[Session]:
    """The sessions without a history: the attempts that have files, with what these say."""
    by_attempt: dict[tuple[int, str], list[CheckpointInfo]] = {}
    for info in infos:
        by_attempt.setdefault((info.generation, info.lineage.attempt), []).append(info)
    found = []
    for number, (_, group) in enumerate(sorted(by_attempt.items()), 1):
        last = max(group, key=lambda info: info.at)
        ancestors = last.lineage.ancestors
        began = next((info.at for info in infos if ancestors and info.batches == ancestors[-1].batches), None)
        is_end = Reason.LAST in last.reasons
        found.append(
            Session(
                number=number,
                started=min(info.created for info in group),
                last_seen=max(info.created for info in group),
                begins=Position() if not ancestors else began,
                ends=last.at,
                ended=FINISHED if is_end else KILLED if number < len(by_attempt) else UNKNOWN,
            )
        )
    return found


def _with_state(run: Run, found: Sequence[traces.Trace]) -> Run:
    """The same, with what is known of its process: it holds the trace of its losses as long as it lives."""
    held: dict[str, bool] = {}  # by attempt, of those that have a trace
    for trace in found:
        held[trace.attempt] = held.get(trace.attempt, False) or not traces.is_free(trace.path)
    *earlier, last = run.sessions
    is_running = any(held.values())
    if last.ended == UNKNOWN and is_running:
        last = replace(last, ended=RUNNING)
    elif last.ended == UNKNOWN and last.record is not None and last.record.attempt in held:
        # another machine's process may hold a lock that is not seen here
        last = replace(last, ended=KILLED if last.record.host == socket.gethostname() else UNKNOWN)
    return replace(run, sessions=[*earlier, last], is_running=is_running)
