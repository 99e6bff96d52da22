"""Which of the checkpoints on disk to go on from, and which is best: the first in order whose bytes verify."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from checkpointable._errors import CheckpointableWarning, CheckpointFileError
from checkpointable.catalog.info import (
    CheckpointInfo,
    Unreadable,
    checkpoint_files,
    in_order,
    inspect,
    may_be_checkpoint,
)
from checkpointable.storage import files
from checkpointable.storage.format import archive
from checkpointable.storage.paths import plain

_LOOK_SECONDS = 60.0
_INSTEAD = "Pass the directory that the checkpoints are in, or one of its *.ckpt files."


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
class Found:
    """What lies at a path: checkpoints of this library, newest last, and what does not tell whether it is one."""

    infos: list[CheckpointInfo] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    is_file: bool = False


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


def scan(path: str | os.PathLike[str]) -> Found:
    """Everything at or below a path, by its metadata only; nothing if there is no such path.

    Raises:
        CheckpointFileError: If the path is a file that is not a checkpoint of this library.
        OSError: If the directory cannot be listed.
        RemoteError: If a remote file system does not answer. It is no reason to start from nothing.
    """
    for found in _looks(path):
        if all(files.is_there(lost.path) for lost in found.unreadable):
            break
    return found


def _looks(path: str | os.PathLike[str]) -> Iterator[Found]:
    """Look at a path once, and again for as long as the caller asks, up to a minute.

    A file that was deleted between the listing and its reading is no reason to give up: the run that deleted it had
    saved a newer one before, which the next look finds.
    """
    place, deadline = plain(path), time.monotonic() + _LOOK_SECONDS
    yield _look(place)
    while time.monotonic() < deadline:
        yield _look(place)


def newest(found: Found) -> Choice:
    """The newest that verifies and can be resumed from."""
    choice = first_whole((info for info in reversed(found.infos) if not info.weights_only), found.unreadable)
    if found.is_file:
        weights_only = "it holds weights only, and a run cannot go on from these"
        choice.skipped.update({info.path: weights_only for info in found.infos if info.weights_only})
    return choice


def best_of(found: Found, monitor: str | None = None) -> Choice:
    """The best that verifies."""
    return first_whole(by_score(found.infos, monitor), found.unreadable)


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


def first_whole(candidates: Iterable[CheckpointInfo], unreadable: Iterable[Unreadable] = ()) -> Choice:
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
    for found in _looks(path):
        choice = choose(found)
        if all(files.is_there(skipped) for skipped in choice.skipped):
            break
    else:
        if choice.info is None:
            raise TimeoutError(
                f"cannot choose a checkpoint at {path}: for {_LOOK_SECONDS:g} s each was deleted before it was read."
                " Stop the process that deletes them, or pass the path of one that stays."
            )
    choice.warn(stacklevel=4)
    return None if choice.info is None else choice.info.path


def _look(place: str) -> Found:
    kind = files.kind(place)
    if kind is None:
        return Found()
    return _directory(place) if kind == "directory" else _file(place)


def _directory(place: str) -> Found:
    unreadable: list[Unreadable] = []

    def note(error: OSError) -> None:
        if error.filename == place and not isinstance(error, FileNotFoundError):
            raise error
        unreadable.append(Unreadable(path=str(error.filename), problem=f"cannot be listed: {error.strerror}"))

    infos = []
    for seen in files.for_each(place, checkpoint_files(place, on_error=note), _inspect_or_gone):
        if isinstance(seen, Unreadable):
            unreadable.append(seen)
        elif seen is not None:
            infos.append(seen)
    return Found(infos=in_order(infos), unreadable=unreadable)


def _inspect_or_gone(path: str) -> CheckpointInfo | Unreadable | None:
    try:
        return inspect(path)
    except FileNotFoundError:
        return Unreadable(path=path, problem="it was deleted while the directory was searched")


def _file(place: str) -> Found:
    path = os.path.realpath(place) if os.path.islink(place) else place
    if not files.is_there(path):
        return Found(unreadable=[Unreadable(path=place, problem=f"it links to {path}, which is not there")])
    if not files.is_file(path) or not may_be_checkpoint(path):
        raise CheckpointFileError(f"{path} is not a checkpoint, neither whole nor damaged. {_INSTEAD}")
    seen = inspect(path)
    if seen is None:
        raise CheckpointFileError(
            f"{path} is a checkpoint, but not one that checkpointable wrote."
            f" Give it to Trainer.fit(ckpt_path=...) itself. Otherwise: {_INSTEAD}"
        )
    if isinstance(seen, Unreadable):
        return Found(unreadable=[seen], is_file=True)
    return Found(infos=[seen], is_file=True)
