"""The sessions of a run as a tree: which resumed from which, where, and how each ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.report.run import Run
from checkpointable.policy.history import SessionRecord

Fate = Literal["finished", "stopped", "failed", "killed", "open", "unknown"]
Resume = Literal["confirmed", "differs", "not confirmed"]
_STOPPED = {"SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "Ctrl-C"}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One call of ``fit``. Numbers of batches are counted over all epochs.

    Further calls in the same process have the same name.

    Attributes:
        name: In the lineage; empty in files that state none.
        number: Counted from 1 in the order in which they began.
        record: What the history of the run tells of it, if anything.
        parent: The attempt that it resumed from.
        begins: The batches done when it began.
        ends: The batches done in its latest file.
        is_on_the_line: Whether the newest file descends from it, or is its own.
        left_at: The batches at which the next attempt of that line has left it, if there is one.
        infos: Its files.
        is_latest: Whether no attempt began later.
        is_further: Whether it is a further call in the same process, which resumed from no file.
        since: The batches after which values of this name are its own.
        until: The batches up to which they are.
        depth: How many branches it is away from the line.
    """

    name: str
    number: int
    record: SessionRecord | None
    parent: Attempt | None
    begins: int
    ends: int
    is_on_the_line: bool
    left_at: int | None
    infos: Sequence[CheckpointInfo]
    is_latest: bool
    is_further: bool = False
    since: float = -math.inf
    until: float = math.inf
    depth: int = 0

    @property
    def fate(self) -> Fate:
        """How it ended. One that another process follows, and has not said how it ended, was killed."""
        if self.record is None or (self.record.ended is None and self.until < math.inf):
            return "unknown"
        if self.record.ended is None:
            return "open" if self.is_latest else "killed"
        if self.record.ended == "finished":
            return "finished"
        return "stopped" if self.record.ended in _STOPPED else "failed"

    @property
    def compared(self) -> tuple[int | None, int | None]:
        """How many batches that were trained again gave the same, and the first that did not."""
        if self.record is not None:
            return self.record.confirmed_batches, self.record.first_difference
        told = next((info.confirmation for info in reversed(self.infos) if info.confirmation is not None), None)
        return (None, None) if told is None else (told.batches, told.first_difference)

    @property
    def resume(self) -> Resume | None:
        """Whether batches that were trained again gave the same; ``None`` if it did not resume."""
        if self.is_further or (self.parent is None and (self.record is None or self.record.resumed_from is None)):
            return None
        batches, difference = self.compared
        if difference is not None:
            return "differs"
        return "confirmed" if batches else "not confirmed"


@dataclass(frozen=True)
class _Link:
    parent: str | None
    at: int  # batches


def attempts_of(run: Run) -> list[Attempt]:
    """All calls of ``fit`` that files or histories of a run tell of, in the order of the tree.

    A branch follows where it begins, and the line that leads to the newest file comes last of all branches.
    """
    records, links = _records(run), _links(run)
    generations = _generations(run, links)
    first_saved = {info.lineage.attempt: info.created for info in reversed(run.infos)}
    told = [(name, record) for name in links for record in records.get(name, [None])]

    def began(it: tuple[str, SessionRecord | None]) -> tuple[int, float]:
        name, record = it
        return generations[name], first_saved.get(name, 0.0) if record is None else record.started

    made: dict[str, list[Attempt]] = {}
    for number, (name, record) in enumerate(sorted(told, key=began), start=1):
        attempt = _attempt(run, name, record, number=number, made=made, links=links, records=records)
        made.setdefault(name, []).append(replace(attempt, is_latest=number == len(told)))
    return list(_in_tree_order([attempt for attempts in made.values() for attempt in attempts]))


def _attempt(
    run: Run,
    name: str,
    record: SessionRecord | None,
    *,
    number: int,
    made: Mapping[str, list[Attempt]],
    links: Mapping[str, _Link],
    records: Mapping[str, Sequence[SessionRecord]],
) -> Attempt:
    """One attempt. Those that began before it are made."""
    earlier, link = made.get(name, []), links[name]
    begins = link.at if record is None else record.begins.batches
    later = [] if record is None else [it.begins.batches for it in records[name] if it.started > record.started]
    since, until = begins if earlier else -math.inf, min(later, default=math.inf)
    infos = [info for info in run.infos if info.lineage.attempt == name and since < info.batches <= until]
    left = [it.at for it in links.values() if it.parent == name and since < it.at <= until]
    line = {it.attempt: it.batches for it in run.newest.lineage.ancestors}
    line_until = line.get(name, math.inf if name == run.newest.lineage.attempt else -math.inf)
    is_on_the_line = line_until > since if earlier else line_until > -math.inf
    ends = max([begins, *(info.batches for info in infos), *left, *([] if record is None else [record.ends.batches])])
    left_at = min(line_until, until)
    return Attempt(
        name=name,
        number=number,
        record=record,
        parent=earlier[-1] if earlier else _at(made.get(link.parent or "", []), link.at),
        begins=begins,
        ends=ends,
        is_on_the_line=is_on_the_line,
        left_at=int(left_at) if is_on_the_line and left_at < math.inf else None,
        infos=infos,
        is_latest=False,
        is_further=bool(earlier),
        since=since,
        until=until,
    )


def _at(attempts: Sequence[Attempt], batches: int) -> Attempt | None:
    """Of several calls in one process, the one that trained a batch."""
    return next((it for it in attempts if batches <= it.until), None)


def _records(run: Run) -> dict[str, list[SessionRecord]]:
    """The records of each attempt, in the order in which they began; of each, the one that tells most."""
    found: dict[str, dict[float, SessionRecord]] = {}
    for _, history in run.histories:
        for record in history.sessions:
            of_attempt = found.setdefault(record.attempt, {})
            known = of_attempt.get(record.started)
            if known is None or _fullness(record) > _fullness(known):
                of_attempt[record.started] = record
    return {name: sorted(records.values(), key=lambda it: it.started) for name, records in found.items()}


def _fullness(record: SessionRecord) -> tuple[bool, int, float]:
    return record.ended is not None, record.ends.batches, record.last_seen


def _links(run: Run) -> dict[str, _Link]:
    """What each attempt resumed from, by the lineages of all files and, for those that these lack, by the histories."""
    links: dict[str, _Link] = {}
    for lineage in {info.lineage for info in run.infos}:
        names = [*(it.attempt for it in lineage.ancestors), lineage.attempt]
        links.setdefault(names[0], _Link(None, 0))
        for ancestor, name in zip(lineage.ancestors, names[1:], strict=True):
            links.setdefault(name, _Link(ancestor.attempt, ancestor.batches))
    for _, history in run.histories:
        for earlier, record in zip((None, *history.sessions), history.sessions, strict=False):
            parent = None if earlier is None else earlier.attempt  # of a further call, the attempt is known already
            links.setdefault(record.attempt, _Link(parent, record.begins.batches))
    return links


def _generations(run: Run, links: Mapping[str, _Link]) -> dict[str, int]:
    """How often the run had been resumed when each attempt began."""
    found = {record.attempt: record.generation for _, history in run.histories for record in history.sessions}
    for info in run.infos:
        found.setdefault(info.lineage.attempt, info.lineage.generation)
    for lineage in {info.lineage for info in run.infos}:
        for back, ancestor in enumerate(reversed(lineage.ancestors), start=1):
            found.setdefault(ancestor.attempt, lineage.generation - back)
    return {name: found.get(name, 0) for name in links}


def _in_tree_order(attempts: Sequence[Attempt]) -> Iterator[Attempt]:
    """Each attempt after the one that it resumed from, the side branches first, one step further in."""
    children: dict[int | None, list[Attempt]] = {}
    for attempt in sorted(attempts, key=lambda it: it.number):
        children.setdefault(None if attempt.parent is None else attempt.parent.number, []).append(attempt)

    def with_depths(parent: int | None, depth: int) -> list[tuple[Attempt, int]]:
        """What resumed from an attempt, the last to come first: the one that goes on at the same depth."""
        found = children.get(parent, [])
        main = next((it for it in found if it.is_on_the_line), found[-1] if found else None)
        sides = [(it, depth + 1) for it in reversed(found) if it is not main]
        return [*([] if main is None else [(main, depth)]), *sides]

    waiting = with_depths(None, 0)
    while waiting:
        attempt, depth = waiting.pop()
        yield replace(attempt, depth=depth)
        waiting += with_depths(attempt.number, depth)
