"""The history of a run: what was measured where, what was saved, and the sessions that trained it. It stays small."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from checkpointable.policy.position import Position

FORMAT = 1
_LARGEST = 1e300  # numbers beyond are not drawn, as their differences can overflow


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was measured at one position.

    Attributes:
        position: Where. The values are those of the weights after that many batches.
        metrics: The values that were logged there, and nothing that was carried over from an earlier position.
        ended: ``"validation"`` or ``"epoch"``: what had just ended.
    """

    position: Position
    metrics: Mapping[str, float]
    ended: str


@dataclass(frozen=True, kw_only=True)
class SavedPoint:
    """One file that was saved, and what it cost.

    Attributes:
        position: Where the run stood.
        kind: Of the file, as in ``CheckpointInfo``.
        name: Of the file, without its directory; the file may be deleted by now.
        score: The value of the monitor on these weights, if it was saved as one of the best.
        created: Seconds since the epoch of Unix time.
        blocked_seconds: How long training waited.
        write_seconds: How long the background thread took until the file was durable.
        size_bytes: Of the file.
    """

    position: Position
    kind: str
    name: str
    score: float | None
    created: float
    blocked_seconds: float
    write_seconds: float
    size_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """One call of ``fit``: an attempt of the run.

    Attributes:
        attempt: Its name in the lineage.
        generation: How often the run had been resumed.
        started: When, in seconds since the epoch of Unix time.
        begins: The position at which it began to train.
        resumed_from: The file, or ``None`` if the run began.
        command: The command line, program first.
        commit: Of the git repository of the script, or ``None`` if there is none.
        is_dirty: Whether that repository had changes that were not committed; ``None`` if unknown.
        host: The name of the machine.
        changes: What the script trained otherwise than the file says, one line each.
        exactness: How exactly it resumed, in one line; ``None`` for the session that began the run.
        confirmed_batches: How many batches that were trained again gave the same, bit for bit; ``None`` if there were
            none to compare.
        first_difference: The number in the run of the first batch that did not.
        last_seen: When its latest file was saved.
        ends: The position of its latest file.
        ended: What ended it: ``"finished"``, ``"SIGTERM"``, ``"Ctrl-C"``, or the exception. ``None`` in the file that a
            running session saves; if a later session follows, it was killed, or could not save.
    """

    attempt: str
    generation: int
    started: float
    begins: Position
    resumed_from: str | None
    command: tuple[str, ...]
    commit: str | None
    is_dirty: bool | None
    host: str
    changes: tuple[str, ...] = ()
    exactness: str | None = None
    confirmed_batches: int | None = None
    first_difference: int | None = None
    last_seen: float
    ends: Position
    ended: str | None = None


@dataclass(frozen=True)
class MeasuredValue:
    """One value of one metric, and the position of the weights that it was measured on."""

    position: Position
    value: float

    @property
    def is_drawable(self) -> bool:
        """Whether it is a number that has a place on an axis."""
        return math.isfinite(self.value) and abs(self.value) < _LARGEST


@dataclass(frozen=True, kw_only=True)
class History:
    """What one file tells of its whole run, up to itself. All are in the order in which they happened.

    ``monitor`` and ``mode`` are those of the latest session. Older points and saves may have been thinned out:
    ``points_left_out`` and ``saves_left_out`` are the numbers of those that are not listed any more.
    ``metrics_left_out`` is how many values had no room in the point with the most of them.
    """

    monitor: str | None
    mode: str | None
    points: tuple[Point, ...] = ()
    saves: tuple[SavedPoint, ...] = ()
    sessions: tuple[SessionRecord, ...] = ()
    saves_left_out: int = 0
    points_left_out: int = 0
    metrics_left_out: int = 0

    def values_of(self, metric: str) -> list[MeasuredValue]:
        """The values of one metric, each with where it was measured."""
        return [MeasuredValue(it.position, it.metrics[metric]) for it in self.points if metric in it.metrics]

    format: int = FORMAT
