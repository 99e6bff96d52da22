"""One trace file: the results of the batches of one attempt on one rank, and what it says about itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from checkpointable.catalog.scan import Found
from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage import ring_file

_NAME = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}(?P<attempt>\w+)-(?P<rank>\d+)\.trace")


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a trace says about itself.

    Attributes:
        run_id: Its run.
        trajectory: The attempt that began its trajectory.
        ranks: How many there are.
        ended: What ended the fit, if it was an exception. It writes no file where it comes inside a batch.
        ended_at: When, in seconds since the epoch of Unix time.
        session: When the session began, as its record has it; ``None`` on other ranks than 0, which have no record.
    """

    run_id: str
    trajectory: str
    ranks: int
    ended: str | None = field(default=None, compare=False)
    ended_at: float = field(default=0.0, compare=False)
    session: float | None = field(default=None, compare=False)

    def encoded(self) -> bytes:
        """As it is written to the file."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One file: the bits of each batch's result, by the number of the batch in the run."""

    path: str
    attempt: str
    rank: int
    label: Label
    records: dict[int, int]

    def reaches_beyond(self, batches: int) -> bool:
        """Whether it has a batch after so many."""
        return max(self.records, default=0) > batches


def rank_of(path: str) -> int | None:
    """The rank that a trace is of, by its name; ``None`` if the name is that of no trace."""
    named = _NAME.fullmatch(os.path.basename(path))
    return None if named is None else int(named["rank"])


def read_trace(path: str) -> Trace | None:
    """A trace; ``None`` if it cannot be read, so that nothing is compared with it and nothing claimed from it."""
    named = _NAME.fullmatch(os.path.basename(path))
    try:
        ring = ring_file.read(path)
    except OSError:  # another user's, or deleted meanwhile
        return None
    label = None if ring is None else _label(ring.label)
    if ring is None or label is None or named is None:
        return None
    return Trace(path=path, attempt=named["attempt"], rank=int(named["rank"]), label=label, records=ring.records)


def of_run(run_id: str, folders: Iterable[str]) -> list[Trace]:
    """The traces of a run in these local folders."""
    return [trace for trace in all_in(folders) if trace.label.run_id == run_id]


def all_in(folders: Iterable[str], *, rank: int = 0, ranks: int = 1) -> list[Trace]:
    """The traces in these local folders that can be read, shared out over so many ranks.

    A folder that is gone or may not be listed has none.
    """
    found = []
    for folder in folders:
        try:
            named = {name: rank_of(name) for name in sorted(os.listdir(folder or "."))}
        except OSError:
            continue
        mine = (name for name, of in named.items() if of is not None and of % ranks == rank)
        found += [read_trace(os.path.join(folder, name)) for name in mine]
    return [trace for trace in found if trace is not None]


@dataclass(frozen=True)
class End:
    """What ended a fit: the first exception of any rank. ``session``: as in ``Label``."""

    text: str
    session: float | None


def ends_in(traces: Iterable[Trace]) -> dict[str, End]:
    """What ended the latest fit of each attempt, as far as their traces tell."""
    found: dict[str, list[Label]] = {}
    for trace in traces:
        if trace.label.ended is not None:
            found.setdefault(trace.attempt, []).append(trace.label)
    ends = {}
    for attempt, labels in found.items():
        first = min(labels, key=lambda label: label.ended_at)
        session = next((label.session for label in labels if label.session is not None), None)
        ends[attempt] = End(str(first.ended), session)
    return ends


def is_free(path: str) -> bool:
    """Whether no process writes a trace any more."""
    try:
        return not ring_file.is_in_use(path)
    except OSError:  # another user's, or deleted meanwhile
        return False


def without_run(free: Iterable[Trace], found: Iterable[Found]) -> list[Trace]:
    """Those of whose run there is no checkpoint to resume from, by a look that was taken after they were free."""
    found = list(found)
    if any(it.unreadable for it in found):  # one of them may be of any run
        return []
    runs = {info.run_id for it in found for info in it.infos}
    return [trace for trace in free if trace.label.run_id not in runs]


def _label(text: bytes) -> Label | None:
    try:
        return Label(**json.loads(text))
    except (ValueError, TypeError):  # damaged, or of another version
        return None
