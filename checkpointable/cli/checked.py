"""Which checkpoints of a run are its best and its last, and whether their bytes are as they were written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from checkpointable.catalog import select
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import Found
from checkpointable.cli.one_run import Run
from checkpointable.storage import files
from checkpointable.storage.paths import is_remote

_MOST_BYTES = 1_000_000_000  # that a look at a run reads without being asked to


@dataclass(frozen=True)
class Checked:
    """A checkpoint. It is intact if its bytes were read, and of unknown state if not."""

    info: CheckpointInfo
    is_read: bool


@dataclass(frozen=True, kw_only=True)
class Files:
    """The checkpoints that count.

    Attributes:
        best: The best that is not known to be damaged.
        last: The newest to resume from that is not known to be damaged.
        damaged: The damaged ones that were found, with what is wrong.
    """

    best: Checked | None
    last: Checked | None
    damaged: dict[str, str]


def check(run: Run, found: Found, *, reads_all: bool) -> Files:
    """Find the best and the last of a run.

    Args:
        run: The run.
        found: All that is there. Unreadable files may be of any run.
        reads_all: Whether every byte is read, or only the best and the last, if they are local and not large.
    """
    damaged = {lost.path: lost.problem for lost in found.unreadable}
    read: dict[str, bool] = {}
    if reads_all:
        for info in run.infos:
            _read(info, read, damaged)
    resumable = [info for info in reversed(run.infos) if not info.weights_only]
    best = _first(select.by_score(run.infos, None), read, damaged)
    return Files(best=best, last=_first(resumable, read, damaged), damaged=damaged)


def _first(candidates: Iterable[CheckpointInfo], read: dict[str, bool], damaged: dict[str, str]) -> Checked | None:
    for info in candidates:
        if info.path not in read and (is_remote(info.path) or info.size > _MOST_BYTES):
            return Checked(info, is_read=False)
        if _read(info, read, damaged):
            return Checked(info, is_read=True)
    return None


def _read(info: CheckpointInfo, read: dict[str, bool], damaged: dict[str, str]) -> bool:
    """Whether it is intact. One that was deleted meanwhile is neither intact nor damaged."""
    if info.path not in read:
        problem = info.verify()
        read[info.path] = problem is None
        if problem is not None and files.is_there(info.path):
            damaged[info.path] = problem
    return read[info.path]
