"""Which checkpoints of each run are outdated, and how they are deleted: each is read to its end before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from checkpointable._errors import CheckpointFileError, PolicyError, SaveError
from checkpointable.catalog import select
from checkpointable.catalog.info import CheckpointInfo, read_info
from checkpointable.catalog.scan import Found
from checkpointable.policy.reasons import Reason
from checkpointable.storage.local import store_at
from checkpointable.storage.paths import parent


def outdated(infos: Sequence[CheckpointInfo], whole: Found, *, keep_last: int, keep_best: int) -> list[CheckpointInfo]:
    """Those of ``infos`` that ``Checkpoints.prune`` deletes if they are intact, oldest first.

    Args:
        infos: The checkpoints to choose among, newest last.
        whole: All that is at their path. What ``latest`` and ``best`` choose among it stays.
        keep_last: As for ``Checkpoints.prune``.
        keep_best: As for ``Checkpoints.prune``.
    """
    counts = {"keep_last": keep_last, "keep_best": keep_best}
    wrong = [f"{name}={count!r}" for name, count in counts.items() if not isinstance(count, int) or count < -1]
    if wrong:
        raise PolicyError(f"cannot prune with {', '.join(wrong)}; allowed: a count from 0 on, or -1 to keep all.")
    stays = {info.path for info in infos if info.kind == Reason.MANUAL or Reason.KEPT_EPOCH in info.reasons}
    for choice in (select.newest(whole), select.best_of(whole)):
        stays |= {*choice.skipped, *([choice.info.path] if choice.info else [])}
    for run_id in {info.run_id for info in infos}:
        run = [info for info in infos if info.run_id == run_id and info.kind != Reason.MANUAL]
        resumable = [info for info in run if not info.weights_only] or run
        stays |= _kept(list(reversed(resumable)), keep_last) | _kept(select.by_score(run, None), keep_best)
    return [info for info in infos if info.path not in stays]


def delete(
    infos: Iterable[CheckpointInfo], copies: Mapping[str, Sequence[CheckpointInfo]], path: str
) -> tuple[list[str], SaveError | None]:
    """Delete the intact ones and their copies at other paths; return what was deleted, and what could not be.

    Args:
        infos: The checkpoints.
        copies: Their copies, by path.
        path: Where they were found, for the error.
    """
    deleted, failures = [], []
    for info in (it for first in infos for it in (first, *copies.get(first.path, ()))):
        try:
            if not _is_replaced(info) and info.verify() is None:
                store_at(parent(info.path)).remove(info.path)
                deleted.append(info.path)
        except (OSError, CheckpointFileError) as error:
            failures.append((info.path, error))
    if not failures:
        return deleted, None
    each = "".join(f"\n  {it}: {error}" for it, error in failures)
    failure = SaveError(
        f"cannot delete {len(failures)} outdated checkpoints at {path}:{each}\n"
        f"Delete these by hand, or prune again later. {len(deleted)} others were deleted."
    )
    failure.__cause__ = failures[0][1]
    return deleted, failure


def _kept(candidates: list[CheckpointInfo], count: int) -> set[str]:
    """The paths of the first ``count`` intact candidates, and of the damaged ones before them."""
    if count == -1:
        return {info.path for info in candidates}
    stays, intact = set(), 0
    for info in candidates:
        if intact == count:
            break
        stays.add(info.path)
        intact += info.verify() is None
    return stays


def _is_replaced(info: CheckpointInfo) -> bool:
    """Whether the file was deleted, or replaced by another of the same name."""
    try:
        now = read_info(info.path)
    except FileNotFoundError:
        return True
    return (now.run_id, now.created) != (info.run_id, info.created)
