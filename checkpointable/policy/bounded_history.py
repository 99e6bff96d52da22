"""Keeps the history of a run small: what is thinned out of it, and what always stays.

Points and saves are thinned evenly over the run, the older ones first where all are as close to one another. So after
10,000 epochs the curve still reaches from the first to the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from checkpointable.policy.history import History, Point, SavedPoint, SessionRecord

MOST_BYTES = 1 << 16  # of a history as JSON
_GOAL = 3 / 4  # of the room, so that it is not thinned again for each new point
_METRICS_BYTES = 2000  # of the values of one point
_NUMBER_BYTES = 28  # at most, of one value with what separates it from the next
_MOST_WORDS, _MOST_CHANGES = 40, 20

Part: TypeAlias = Point | SavedPoint | SessionRecord


def bounded(history: History, size_of: Callable[[Part], int], most_bytes: int) -> History:
    """The same with as much as fits.

    The first session and the latest ones stay. Of the points of each kind, and of the saves, the first, the last and
    the best stay, and the last ones of sessions while there is room.

    Args:
        history: As it is.
        size_of: The bytes that one part takes.
        most_bytes: For all points, saves and sessions together.
    """
    sessions = _first_and_latest(history.sessions, size_of, most_bytes // 2)
    left = most_bytes - sum(map(size_of, sessions))
    kinds = dict.fromkeys(point.ended for point in history.points)
    groups: dict[str | None, list[Point | SavedPoint]] = {
        kind: [point for point in history.points if point.ended == kind] for kind in kinds
    }
    groups[None] = list(history.saves)
    sizes = {kind: [size_of(part) for part in group] for kind, group in groups.items()}
    kept: dict[str | None, list[int]] = {}
    for number, kind in enumerate(
        sorted(groups, key=lambda kind: sum(sizes[kind]))
    ):  # what a small one leaves, others get
        room = left // (len(groups) - number)
        parts = [_Thinnable(it.position.batches, size) for it, size in zip(groups[kind], sizes[kind], strict=True)]
        kept[kind] = thinned(parts, _importance(history, groups[kind], sessions), room)
        left -= sum(sizes[kind][place] for place in kept[kind])
    stay = {id(groups[kind][place]) for kind in kinds for place in kept[kind]}
    points = tuple(point for point in history.points if id(point) in stay)
    saves = tuple(history.saves[place] for place in kept[None])
    return replace(
        history,
        points=points,
        saves=saves,
        sessions=sessions,
        points_left_out=history.points_left_out + len(history.points) - len(points),
        saves_left_out=history.saves_left_out + len(history.saves) - len(saves),
    )


@dataclass(frozen=True)
class _Thinnable:
    """A part of a history by the batches of the run before it, and its bytes."""

    batches: int
    size: int


def thinned(parts: Sequence[_Thinnable], importance: Sequence[int], most_bytes: int) -> list[int]:
    """Which parts stay, by their places: the less important ones go first, of these the ones with close neighbours."""
    kept, total = list(range(len(parts))), sum(part.size for part in parts)
    if total <= most_bytes:
        return kept
    for level in sorted(set(importance)):
        goal = most_bytes if level else int(most_bytes * _GOAL)
        while total > goal and any(importance[place] == level for place in kept):
            gone = _loosest(parts, [importance[place] == level for place in kept], kept, total - goal)
            total -= sum(parts[place].size for place in gone)
            kept = [place for place in kept if place not in gone]
    return kept


def _loosest(parts: Sequence[_Thinnable], may_go: Sequence[bool], kept: Sequence[int], excess: int) -> set[int]:
    """Those to go next, no two of them neighbours, until so many bytes are gone or no other may."""

    def span(at: int) -> float:
        if at in (0, len(kept) - 1):
            return math.inf
        return parts[kept[at + 1]].batches - parts[kept[at - 1]].batches

    gone: set[int] = set()
    for at in sorted((at for at in range(len(kept)) if may_go[at]), key=span):
        if excess > 0 and not {at - 1, at + 1} & gone:
            gone.add(at)
            excess -= parts[kept[at]].size
    return {kept[at] for at in gone}


def _importance(history: History, group: Sequence[Point | SavedPoint], sessions: Sequence[SessionRecord]) -> list[int]:
    """3 for the last, 2 for the first and the best, 1 for the last of each session, 0 for all others."""
    found = [0] * len(group)
    for session in sessions:
        before = [at for at, part in enumerate(group) if part.position.batches <= session.ends.batches]
        if before:
            found[before[-1]] = 1
    best = _best(history, group)
    for at in (0, *([] if best is None else [best])) if found else ():
        found[at] = 2
    if found:
        found[-1] = 3
    return found


def _best(history: History, group: Sequence[Point | SavedPoint]) -> int | None:
    values = [it.metrics.get(history.monitor or "") if isinstance(it, Point) else it.score for it in group]
    scores = {at: value for at, value in enumerate(values) if value is not None and not math.isnan(value)}
    if not scores:
        return None
    return max(scores, key=lambda at: scores[at]) if history.mode == "max" else min(scores, key=lambda at: scores[at])


def _first_and_latest(
    sessions: Sequence[SessionRecord], size_of: Callable[[Part], int], most_bytes: int
) -> tuple[SessionRecord, ...]:
    """The first session, and as many of the latest as fit. The last one stays in any case."""
    if len(sessions) < 2:
        return tuple(sessions)
    left = most_bytes - size_of(sessions[0]) - size_of(sessions[-1])
    first = len(sessions) - 1
    while first > 1 and (left := left - size_of(sessions[first - 1])) >= 0:
        first -= 1
    return (sessions[0], *sessions[first:])


def with_few_metrics(point: Point, monitor: str | None) -> Point:
    """The same with the values that have room in a point: first the monitored one, then the others in their order."""
    left, kept = _METRICS_BYTES, {}
    for name in sorted(point.metrics, key=lambda name: name != monitor):
        left -= len(name.encode()) + _NUMBER_BYTES
        if left < 0:
            break
        kept[name] = point.metrics[name]
    return replace(point, metrics=kept)


def shortened(session: SessionRecord) -> SessionRecord:
    """The same without what is too long to read."""
    return replace(
        session,
        command=_few([cut(word, 200) for word in session.command], _MOST_WORDS),
        changes=_few([cut(line, 200) for line in session.changes], _MOST_CHANGES),
        exactness=None if session.exactness is None else cut(session.exactness, 600),
    )


def _few(words: Sequence[str], most: int) -> tuple[str, ...]:
    return (*words[:most], *(["..."] if len(words) > most else []))


def cut(text: str, most: int = 200) -> str:
    """The text, or as much of its begin as is to be kept."""
    return text if len(text) <= most else f"{text[:most]}..."
