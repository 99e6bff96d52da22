"""The trace files of a run: which there are, what each says about itself, and which hold the same numbers.

A trace has the results of one attempt's batches on one rank. Attempts belong to one trajectory if each of them has
resumed exactly, as far as is known: wherever they begin, a batch of a given number gives all of them the same result.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from checkpointable._errors import CheckpointableWarning
from checkpointable.catalog.scan import scan
from checkpointable.catalog.traces import Trace, all_in, is_free, without_run
from checkpointable.policy.names import TEMPORARY_PREFIX


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
        others = [trace for trace in self._of_all_runs() if trace.label.run_id != self.run_id and is_free(trace.path)]
        return without_run(others, [scan(place) for place in {os.path.dirname(trace.path) for trace in others}])

    def _of_all_runs(self) -> list[Trace]:
        return all_in(self.directories, rank=self.rank, ranks=self.ranks)


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
