"""Which checkpoint to resume from, and which is best: the first in order whose bytes verify."""

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
    """The newest checkpoint that verifies and can be resumed from, as ``Trainer.fit(ckpt_path=latest(...))`` takes it.

    The run whose newest file was written last comes first; within a run the position decides, whatever its clocks said.
    A file saved by name (kind ``"manual"``) comes after one saved at a safe point of the same position. Passed over
    without a word: files that hold weights only, and those that plain Lightning wrote.

    Args:
        path: A directory, searched at or below; a checkpoint file, which is judged itself; or a link to either. A
            local path, or a URL such as ``s3://bucket/runs``.

    Returns:
        A file whose bytes were all read and checked; ``None`` if there is none, as before the first save. A newer one
        that does not verify is passed over with a ``CheckpointableWarning`` that says why.

    Raises:
        CheckpointFileError: If the path is a file that is not a checkpoint of this library.
        OSError: If the directory cannot be listed.
        TimeoutError: If for a minute each file is deleted before it is read.
        RemoteError: If a remote file system does not answer. It is no reason to start from nothing.
    """
    return _choose(path, newest)


def best(path: str | os.PathLike[str], monitor: str | None = None) -> str | None:
    """The checkpoint with the best score that verifies, of the newest run that has one.

    NaN is never best; among equals the earlier is. A file that holds weights only counts like any other. An older run
    is asked only if nothing of the newer one verifies.

    Args:
        path: As for ``latest``.
        monitor: The quantity that decides; ``None``: the one by which the newest scored file was judged.

    Returns:
        As for ``latest``: all its bytes were checked, and what is passed over is named in a warning.

    Raises:
        CheckpointFileError: If the path is a file that is not a checkpoint of this library.
        OSError: If the directory cannot be listed.
        TimeoutError: If for a minute each file is deleted before it is read.
        RemoteError: If a remote file system does not answer. It is no reason to start from nothing.
    """
    return _choose(path, lambda found: best_of(found, monitor))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The checkpoint chosen, if any, and why those before it were not."""

    info: CheckpointInfo | None
    skipped: dict[str, str]

    def warn(self, *, stacklevel: int) -> None:
        """Name what was passed over; ``stacklevel`` counts from here, as that of ``warnings.warn``."""
        outcome = "Nothing else there can be used: pass a path where a whole checkpoint lies."
        if self.info is not None:
            outcome = f"{self.info.path} comes next. Replace the file by a good copy, or delete it."
        for path, why in self.skipped.items():
            warnings.warn(f"passed over {path}: {why}. {outcome}", CheckpointableWarning, stacklevel=stacklevel)


def newest(found: Found) -> Choice:
    """The newest that verifies and can be resumed from."""
    choice = first_intact((info for info in reversed(found.infos) if not info.weights_only), found.unreadable)
    if found.is_file:
        weights_only = "it holds weights only, and a run cannot go on from these"
        choice.skipped.update({info.path: weights_only for info in found.infos if info.weights_only})
    return choice


def best_of(found: Found, monitor: str | None = None) -> Choice:
    """The best that verifies."""
    return first_intact(by_score(found.infos, monitor), found.unreadable)


def by_score(infos: Iterable[CheckpointInfo], monitor: str | None) -> list[CheckpointInfo]:
    """Those judged by a quantity, best first, the newest run before the older ones. Takes them newest last.

    Of a run that has gone back to an older file, those that it left behind do not count.
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


def first_intact(candidates: Iterable[CheckpointInfo], unreadable: Iterable[Unreadable] = ()) -> Choice:
    """The first of them whose bytes verify. What cannot be read counts as before it if it was changed later."""
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
                f"cannot choose a checkpoint at {path}: for a minute each was deleted before it was read."
                " Stop the process that deletes them, or pass the path of one that stays."
            )
    choice.warn(stacklevel=4)
    return None if choice.info is None else choice.info.path
