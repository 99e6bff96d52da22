"""Chooses the checkpoint to resume from, and the best one: the first in order that is intact."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from checkpointable._errors import CheckpointableWarning
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import Found, Unreadable, looks
from checkpointable.storage import files
from checkpointable.storage.format import archive


def latest(path: str | os.PathLike[str]) -> str | None:
    """The newest intact checkpoint that can be resumed from, for ``Trainer.fit(ckpt_path=latest(...))``.

    The run whose newest file was written last comes first. Within a run, the position decides, not the clock. At the
    same position, a file saved at a safe point comes before one saved by name (kind ``"manual"``). Files that hold
    weights only, and those written by plain Lightning, are skipped without a warning.

    Args:
        path: A directory, which is searched with its subdirectories; a checkpoint file, which alone is considered; or a
            link to either. A local path, or a URL such as ``s3://bucket/runs``.

    Returns:
        The path of a file whose bytes were all read and checked; ``None`` if there is none, as before the first save.
        A newer damaged file is skipped with a ``CheckpointableWarning`` that says why.

    Raises:
        CheckpointFileError: If the path is a file that is not a checkpoint of this library.
        OSError: If the directory cannot be listed.
        TimeoutError: If for a minute files are deleted before they can be read, and no other is intact.
        RemoteError: If a remote file system does not answer. This does not mean that there are no checkpoints.
    """
    return _choose(path, newest)


def best(path: str | os.PathLike[str], monitor: str | None = None) -> str | None:
    """The intact checkpoint with the best score, of the newest run that has a score.

    NaN is never best. Of equal scores, the earlier is best. Files that hold weights only count as well. An older run is
    considered only if no file of the newer one is intact.

    Args:
        path: As for ``latest``.
        monitor: The quantity to compare; ``None`` for the monitor of the newest file that has a score.

    Returns:
        The path of a file whose bytes were all read and checked; ``None`` if there is none. A better damaged file is
        skipped with a ``CheckpointableWarning`` that says why.

    Raises:
        CheckpointFileError: If the path is a file that is not a checkpoint of this library.
        OSError: If the directory cannot be listed.
        TimeoutError: If for a minute files are deleted before they can be read, and no other is intact.
        RemoteError: If a remote file system does not answer. This does not mean that there are no checkpoints.
    """
    return _choose(path, lambda found: best_of(found, monitor))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen checkpoint, and the paths that came before it, each with the reason why it cannot be used."""

    info: CheckpointInfo | None
    skipped: dict[str, str]

    def warn(self, *, stacklevel: int) -> None:
        """Warn about each skipped file; ``stacklevel`` counts from here, like that of ``warnings.warn``."""
        outcome = "No other file there can be used. Pass the path of an intact checkpoint."
        if self.info is not None:
            outcome = f"The next intact one is {self.info.path}. Replace the skipped file by a good copy, or delete it."
        for path, why in self.skipped.items():
            warnings.warn(f"skipped {path}: {why}. {outcome}", CheckpointableWarning, stacklevel=stacklevel)


def newest(found: Found) -> Choice:
    """The newest intact checkpoint that can be resumed from."""
    choice = first_intact((info for info in reversed(found.infos) if not info.weights_only), found.unreadable)
    if found.is_file:
        weights_only = "it holds weights only, so a run cannot be resumed from it"
        choice.skipped.update({info.path: weights_only for info in found.infos if info.weights_only})
    return choice


def best_of(found: Found, monitor: str | None = None) -> Choice:
    """The best intact checkpoint."""
    return first_intact(by_score(found.infos, monitor), found.unreadable)


def by_score(infos: Iterable[CheckpointInfo], monitor: str | None) -> list[CheckpointInfo]:
    """The checkpoints scored by ``monitor``, best first, those of newer runs before those of older ones.

    If a run was resumed from an older file, the files that had followed that file do not count. ``infos`` must be
    sorted, newest last.
    """
    infos = list(infos)
    newest = {info.run_id: info.lineage for info in infos}
    current = [info for info in infos if newest[info.run_id].includes(info.lineage.attempt, info.batches)]
    scored = [info for info in current if info.score is not None and not math.isnan(info.score)]
    monitor = scored[-1].monitor if monitor is None and scored else monitor
    scored = [info for info in scored if info.monitor == monitor]
    sign = -1.0 if scored and scored[-1].mode == "max" else 1.0
    runs = list(dict.fromkeys(info.run_id for info in reversed(scored)))
    return sorted(scored, key=lambda info: (runs.index(info.run_id), sign * (info.score or 0.0)))


def first_intact(candidates: Iterable[CheckpointInfo], unreadable: Iterable[Unreadable]) -> Choice:
    """The first intact candidate. Unreadable files that were changed after it was saved are reported as skipped."""
    chosen, skipped = None, {}
    for info in candidates:
        problem = archive.problem(info.path)
        if problem is None:
            chosen = info
            break
        skipped[info.path] = problem
    skipped.update({lost.path: lost.problem for lost in unreadable if not chosen or lost.modified > chosen.created})
    return Choice(info=chosen, skipped=skipped)


def _choose(path: str | os.PathLike[str], choose: Callable[[Found], Choice]) -> str | None:
    for found in looks(path):
        choice = choose(found)
        if all(files.is_there(skipped) for skipped in choice.skipped):
            break
    else:
        if choice.info is None:
            raise TimeoutError(
                f"cannot choose a checkpoint at {path}: for a minute, files were deleted before they could be read, and"
                " no other is intact. Stop the process that deletes them, or pass the path of one that is kept."
            )
    choice.warn(stacklevel=4)
    return None if choice.info is None else choice.info.path
