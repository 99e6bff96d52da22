"""Chooses the checkpoint to resume from, and the best one: the first in order that is intact."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from checkpointable._errors import CheckpointableWarning, MonitorError, RemoteError
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import Found, looks
from checkpointable.catalog.unusable import passed_over, why_nothing
from checkpointable.storage import files
from checkpointable.storage.format import checkpoint
from checkpointable.storage.paths import Paths

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # where Lightning looks before it has one


def latest(path: Paths) -> str | None:
    """The newest intact checkpoint that can be resumed from, for ``Trainer.fit(ckpt_path=latest(...))``.

    The run whose newest file was written last comes first. Within a run, the position decides, not the clock. At the
    same position, a file saved at a safe point comes before one saved by name (kind ``"manual"``). Files that hold
    weights only, and those written by plain Lightning, are skipped. If nothing else is there, one line says so. Newer
    checkpoints in shards are skipped with a ``CheckpointableWarning`` that names them.

    Args:
        path: A directory, which is searched with its subdirectories; a checkpoint file, which alone is considered; or a
            link to either. A local path, or a URL such as ``s3://bucket/runs``. Or several of these, as for a run with
            a ``fast_dirpath``: what is at one that cannot be reached is left out, with a ``CheckpointableWarning``, if
            another has an intact checkpoint.

    Returns:
        The path of a file whose bytes were all read and checked; ``None`` if there is none, as before the first save.
        A newer damaged file is skipped with a ``CheckpointableWarning`` that says why.

    Raises:
        CheckpointFileError: If the path is a file that is not a checkpoint of this library.
        OSError: If the directory cannot be listed.
        TimeoutError: If for a minute files are deleted before they can be read, and no other is intact.
        RemoteError: If a remote file system does not answer. This does not mean that there are no checkpoints.
    """
    choice, found = choose(path, newest)
    choice.warn(stacklevel=3)
    sharded = passed_over(path, -math.inf if choice.info is None else choice.info.created)
    if sharded:
        warnings.warn(sharded, CheckpointableWarning, stacklevel=2)
    elif choice.info is None and not choice.skipped:
        _say(f"nothing to resume: {why_nothing(path, found)}")
    return None if choice.info is None else choice.info.path


def best(path: Paths, monitor: str | None = None) -> str | None:
    """The intact checkpoint with the best score, of all runs there.

    Scores are compared if they are of the same quantity in the same mode. NaN is never best. Of equal scores, the
    earlier is best. Files that hold weights only count as well.

    Args:
        path: As for ``latest``.
        monitor: The quantity to compare; ``None`` for the monitor of the newest file that has a score, with a
            ``CheckpointableWarning`` that names the others. The newest file also decides between two modes.

    Returns:
        The path of a file whose bytes were all read and checked; ``None`` if there is none. A better damaged file is
        skipped with a ``CheckpointableWarning`` that says why.

    Raises:
        MonitorError: If there are scores, but none of ``monitor``. The message names what there is.
        CheckpointFileError: If the path is a file that is not a checkpoint of this library.
        OSError: If the directory cannot be listed.
        TimeoutError: If for a minute files are deleted before they can be read, and no other is intact.
        RemoteError: If a remote file system does not answer. This does not mean that there are no checkpoints.
    """
    choice, _ = choose(path, lambda found: best_of(found, monitor))
    choice.warn(stacklevel=3)
    return None if choice.info is None else choice.info.path


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen checkpoint, and the paths that came before it, each with the reason why it cannot be used.

    ``notes`` are sentences about the choice that users should read.
    """

    info: CheckpointInfo | None
    skipped: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def warn(self, *, stacklevel: int) -> None:
        """Warn about notes and skipped files; ``stacklevel`` counts from here, like that of ``warnings.warn``."""
        for note in self.notes:
            warnings.warn(note, CheckpointableWarning, stacklevel=stacklevel)
        outcome = "No other file there can be used. Pass the path of an intact checkpoint."
        if self.info is not None:
            outcome = f"The next intact one is {self.info.path}. Replace the skipped file by a good copy, or delete it."
        for path, why in self.skipped.items():
            warnings.warn(f"skipped {path}: {why}. {outcome}", CheckpointableWarning, stacklevel=stacklevel)


def newest(found: Found) -> Choice:
    """The newest intact checkpoint that can be resumed from."""
    choice = _first_intact((info for info in reversed(found.infos) if not info.weights_only), found)
    if found.is_file:
        weights_only = "it holds weights only, so a run cannot be resumed from it"
        choice.skipped.update({info.path: weights_only for info in found.infos if info.weights_only})
    return choice


def best_of(found: Found, monitor: str | None = None) -> Choice:
    """The best intact checkpoint; a ``MonitorError`` if there are scores, but none of ``monitor``."""
    candidates = by_score(found.infos, monitor)
    scored = _scored(found.infos)
    if scored and not candidates:
        lost = "".join(f"\n  not readable: {lost.path}: {lost.problem}" for lost in found.unreadable)
        raise MonitorError(
            f"cannot choose the best checkpoint by monitor={monitor!r}: no file there has its score."
            f" Choose one of {_listed(scored)}.{lost}"
        )
    choice = _first_intact(candidates, found)
    others = [
        info for info in scored if monitor in (None, info.monitor) and _compared(info) != _compared(candidates[0])
    ]
    if others:
        choice.notes.append(
            f"the best checkpoint is chosen by {_listed(candidates)}, as the newest scored file says. Not compared:"
            f" {_listed(others)}. Pass the monitor you mean, or the directory of the runs to compare."
        )
    return choice


def by_score(infos: Iterable[CheckpointInfo], monitor: str | None) -> list[CheckpointInfo]:
    """The checkpoints of all runs scored by ``monitor``, best first, in the mode of the newest.

    ``infos`` must be sorted, newest last.
    """
    scored = [info for info in _scored(infos) if monitor in (None, info.monitor)]
    compared = [info for info in scored if _compared(info) == _compared(scored[-1])]
    sign = -1.0 if compared and compared[-1].mode == "max" else 1.0
    return sorted(compared, key=lambda info: sign * (info.score or 0.0))


def _scored(infos: Iterable[CheckpointInfo]) -> list[CheckpointInfo]:
    """The checkpoints that have a score.

    If a run was resumed from an older file, the files that had followed that file do not count.
    """
    infos = list(infos)
    newest = {info.run_id: info.lineage for info in infos}
    current = [info for info in infos if newest[info.run_id].includes(info.lineage.attempt, info.batches)]
    return [info for info in current if info.score is not None and not math.isnan(info.score)]


def _compared(info: CheckpointInfo) -> tuple[str | None, str | None]:
    return info.monitor, info.mode


def _listed(scored: Iterable[CheckpointInfo]) -> str:
    """What these were scored by, in words."""
    return ", ".join(sorted({f"{info.monitor!r} (mode={info.mode!r})" for info in scored}))


def _say(message: str) -> None:
    """Print a line, once, on rank 0: as Lightning does if it is imported, which then knows the rank."""
    line, lightnings = f"checkpointable: {message}.", sys.modules.get("lightning_utilities.core.rank_zero")
    if lightnings is not None and getattr(lightnings.rank_zero_only, "rank", None) is not None:
        lightnings.rank_zero_info(line)
    elif next((os.environ[name] for name in _RANKS if name in os.environ), "0") == "0":
        print(line, file=sys.stderr)


def _first_intact(candidates: Iterable[CheckpointInfo], found: Found) -> Choice:
    """The first intact candidate, or a copy of it. Unreadable files that are newer than it are reported as skipped."""
    chosen, skipped = None, {}
    for info in (it for first in candidates for it in (first, *found.copies.get(first.path, ()))):
        problem = checkpoint.problem(info.path)
        if problem is None:
            chosen = info
            break
        skipped[info.path] = problem
    skipped.update(
        {lost.path: lost.problem for lost in found.unreadable if not chosen or lost.modified > chosen.created}
    )
    return Choice(info=chosen, skipped=skipped)


def choose(path: Paths, choose: Callable[[Found], Choice]) -> tuple[Choice, Found]:
    """Choose among what is at a path or several, again while files that are tried are deleted."""
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
    if found.unreached:
        if choice.info is None:
            raise RemoteError(found.unreached[0])
        choice.notes.extend(
            f"{why} What is there is not compared: {choice.info.path} is used." for why in found.unreached
        )
    return choice, found
