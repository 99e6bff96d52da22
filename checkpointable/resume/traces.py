"""The trace files of a run: which there are, what each says about itself, and which hold the same numbers.

A trace has the results of one attempt's batches on one rank. Attempts belong to one trajectory if each of them has
resumed exactly, as far as is known: wherever they begin, a batch of a given number gives all of them the same result.
"""

from __future__ import annotations

import glob
import json
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from checkpointable._errors import CheckpointableWarning
from checkpointable.catalog.scan import scan
from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage import ring_file

_NAME = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}(?P<attempt>\w+)-(?P<rank>\d+)\.trace")


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a trace says about itself: its run, the attempt that began its trajectory, and the number of ranks."""

    run_id: str
    trajectory: str
    ranks: int

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


@dataclass(frozen=True, kw_only=True)
class Traces:
    """The traces that one rank of a run looks after.

    Attributes:
        directories: Where they are; the first one gets the new one.
        ranks: How many ranks there are. Traces of higher ones, from an attempt that had more, are shared out.
    """

    directories: tuple[str, ...]
    run_id: str
    rank: int
    ranks: int

    def path(self, attempt: str) -> str:
        """Where the trace of a new attempt goes."""
        return os.path.join(self.directories[0], f"{TEMPORARY_PREFIX}{attempt}-{self.rank}.trace")

    def find(self) -> list[Trace]:
        """Those that can be read."""
        return [trace for trace in self._of_all_runs() if trace.label.run_id == self.run_id]

    def find_abandoned(self) -> list[Trace]:
        """Those of other runs that no process writes any more, and of which no checkpoint is left to resume from."""
        others = [trace for trace in self._of_all_runs() if trace.label.run_id != self.run_id and _is_free(trace.path)]
        found = [scan(place) for place in {os.path.dirname(trace.path) for trace in others}]
        if any(it.unreadable for it in found):  # one of them may be of any run
            return []
        runs = {info.run_id for it in found for info in it.infos}
        return [trace for trace in others if trace.label.run_id not in runs]

    def _of_all_runs(self) -> list[Trace]:
        found = []
        for directory in self.directories:
            for path in sorted(glob.glob(os.path.join(glob.escape(directory), f"{TEMPORARY_PREFIX}*.trace"))):
                named = _NAME.fullmatch(os.path.basename(path))
                if named is not None and int(named["rank"]) % self.ranks == self.rank:
                    found.append(_read(path, named["attempt"], int(named["rank"])))
        return [trace for trace in found if trace is not None]


def _is_free(path: str) -> bool:
    try:
        return not ring_file.is_in_use(path)
    except OSError:  # another user's, or deleted meanwhile
        return False


def remove(traces: Iterable[Trace]) -> None:
    """Delete traces that no later resume needs; warn of those that cannot be deleted."""
    for trace in traces:
        try:
            Path(trace.path).unlink(missing_ok=True)
        except OSError as error:
            warnings.warn(
                f"cannot delete {trace.path}, which no resume needs any more: {error}. It stays; delete it by hand.",
                CheckpointableWarning,
                stacklevel=2,
            )


def _read(path: str, attempt: str, rank: int) -> Trace | None:
    """A trace; ``None`` if it cannot be read, so that nothing is compared with it and nothing claimed from it."""
    try:
        ring = ring_file.read(path)
    except OSError:  # another user's, or deleted meanwhile
        return None
    label = None if ring is None else _label(ring.label)
    if ring is None or label is None:
        return None
    return Trace(path=path, attempt=attempt, rank=rank, label=label, records=ring.records)


def _label(text: bytes) -> Label | None:
    try:
        return Label(**json.loads(text))
    except (ValueError, TypeError):  # damaged, or of another version
        return None
