"""What may go where there is no room for the next checkpoint, and what never goes.

The newest intact file that a run can be resumed from stays until its successor is on disk. Files that the successor
replaces go first. Then the best files are reduced to their weights, and deleted last, the worst ones first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from checkpointable.policy.options import Options
from checkpointable.policy.reasons import Reason
from checkpointable.policy.retention import SavedFile
from checkpointable.saving.kept_files import KeptFiles
from checkpointable.storage.files import freed_bytes
from checkpointable.storage.paths import is_remote
from checkpointable.storage.store import Store


@dataclass(frozen=True)
class MayGo:
    """The files that may go, and how many bytes each frees.

    Attributes:
        outdated: Those that the next file replaces, oldest first; none of them is among the best.
        best: Those among the best, worst first.
    """

    outdated: Mapping[str, int]
    best: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes that all of them free."""
        return sum(self.outdated.values()) + sum(self.best.values())


def may_go(store: Store, kept: KeptFiles, new: SavedFile, own: Callable[[Iterable[str]], set[str]]) -> MayGo:
    """What may go to make room for a new file. ``own`` tells which paths this run may delete at all."""
    stays = _newest_intact(store, kept)
    if stays is None:
        return MayGo({}, {})
    for_ever = {file.path for file in kept.files if Reason.KEPT_EPOCH in file.reasons}
    replaced, worst_first = kept.replaced_by(new), list(reversed(kept.scores))
    deletable = own(replaced | set(worst_first)) - for_ever - {stays}
    outdated = [file.path for file in kept.files if file.path in deletable and file.path not in worst_first]
    best = [path for path in worst_first if path in deletable]
    return MayGo(*({path: freed_bytes(path) for path in paths} for paths in (outdated, best)))


def _newest_intact(store: Store, kept: KeptFiles) -> str | None:
    """The newest file to resume from whose bytes are intact; of weights alone if there is nothing else."""
    here = [file for file in kept.files if store.contains(file.path) or not is_remote(file.path)]
    paths = [file.path for file in here if not file.weights_only] or [file.path for file in here]
    return next((path for path in reversed(paths) if store.problem(path) is None), None)


def warning_of_little(store: Store, options: Options, free: int, size: int, *, weights_only: bool) -> list[str]:
    """A warning before the first file of its kind, if there is not enough room for all that will be kept; else none."""
    counts = options.most_files(weights_only=weights_only)
    count = sum(counts.values()) + 1
    if -1 in counts.values() or free >= count * size:
        return []
    return [
        f"{store.directory} has {free:,} bytes free, and up to {count} checkpoints of {size:,} bytes will be there at"
        f" once ({' + '.join(counts)} + 1): {count * size - free:,} are missing. Free space, keep fewer, or choose"
        " another dirpath."
    ]
