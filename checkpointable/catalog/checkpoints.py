"""The checkpoints at or below a path, as a sequence that can be verified, plotted and pruned."""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

from checkpointable._errors import CheckpointableWarning, CheckpointFileError, PolicyError, SaveError
from checkpointable.catalog import select, table
from checkpointable.catalog.info import CheckpointInfo, read_info
from checkpointable.catalog.scan import scan
from checkpointable.policy.reasons import Reason
from checkpointable.storage.format import checkpoint
from checkpointable.storage.local import store_at
from checkpointable.storage.paths import Paths, normalize_paths, parent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Checkpoints(Sequence[CheckpointInfo]):
    """The checkpoints of this library at or below a path, newest last, in the order of ``latest``.

    Their metadata is read once, by the constructor, without reading tensors. Make a new one to include files saved
    since. A slice is a list. A notebook shows it as a table.

    Args:
        path: A directory, a checkpoint file, or a link to either; a local path, or a URL. A path that does not
            exist has no checkpoints. Or several of these, as for a run with a ``fast_dirpath``: a checkpoint that is at
            more than one of them is listed once, at the first. One that cannot be reached is left out with a
            ``CheckpointableWarning`` if there are checkpoints at another.

    Raises:
        CheckpointFileError: If the path is a file that is not a checkpoint of this library.
        OSError: If the directory cannot be listed.
        RemoteError: If a remote file system does not answer.
    """

    def __init__(self, path: Paths) -> None:
        places = normalize_paths(path)
        self._path, self._found = ", ".join(places), scan(places)
        for why in self._found.unreached:
            warnings.warn(f"{why} What is there is not listed.", CheckpointableWarning, stacklevel=2)

    @overload
    def __getitem__(self, index: int) -> CheckpointInfo: ...
    @overload
    def __getitem__(self, index: slice) -> list[CheckpointInfo]: ...
    def __getitem__(self, index: int | slice) -> CheckpointInfo | list[CheckpointInfo]:
        return self._found.infos[index]

    def __len__(self) -> int:
        return len(self._found.infos)

    def latest(self) -> CheckpointInfo | None:
        """The newest intact checkpoint that can be resumed from, chosen like by ``checkpointable.latest``.

        A damaged file is skipped with a ``CheckpointableWarning`` that says why.
        """
        choice = select.newest(self._found)
        choice.warn(stacklevel=3)
        return choice.info

    def best(self, monitor: str | None = None) -> CheckpointInfo | None:
        """The best intact checkpoint, chosen like by ``checkpointable.best``.

        A damaged file is skipped with a ``CheckpointableWarning`` that says why.

        Args:
            monitor: The quantity to compare; ``None`` for the monitor of the newest file that has a score.

        Raises:
            MonitorError: If there are scores, but none of ``monitor``. The message names what there is.
        """
        choice = select.best_of(self._found, monitor)
        choice.warn(stacklevel=3)
        return choice.info

    def verify(self) -> dict[str, str | None]:
        """Read every file, and return what is wrong with each; ``None`` for an intact one.

        ``*.ckpt`` files that may be damaged checkpoints, and folders that cannot be listed, come last. Files written by
        plain Lightning are left out, as they have no metadata.
        """
        unreadable = {lost.path: lost.problem for lost in self._found.unreadable}
        return {**{info.path: checkpoint.problem(info.path) for info in self}, **unreadable}

    def prune(self, *, keep_last: int = 1, keep_best: int = 1, dry_run: bool = True) -> list[str]:
        """Delete outdated checkpoints: of each run, all but its newest and its best.

        Only intact files count as kept, and each file is read to its end before it is deleted. These are never deleted:
        the file that ``latest`` or ``best`` returns, files kept for ever (reason ``"kept_epoch"``), files saved by name
        (kind ``"manual"``), damaged files (``verify`` says why), files replaced since they were listed, and everything
        that this library did not write.

        Args:
            keep_last: How many of the newest to keep of each run; 0 = none, -1 = all.
            keep_best: How many of the best to keep of each run, by the monitor of its newest file that has a score;
                0 = none, -1 = all.
            dry_run: Delete nothing, only return what would be deleted.

        Returns:
            The paths of the deleted files, or of those that would be deleted, oldest first.

        Raises:
            PolicyError: If a number is not allowed.
            SaveError: If files could not be deleted. The message names them; all others were deleted.
        """
        counts = {"keep_last": keep_last, "keep_best": keep_best}
        wrong = [f"{name}={count!r}" for name, count in counts.items() if not isinstance(count, int) or count < -1]
        if wrong:
            raise PolicyError(f"cannot prune with {', '.join(wrong)}; allowed: a count from 0 on, or -1 to keep all.")
        stays = {info.path for info in self if info.kind == Reason.MANUAL or Reason.KEPT_EPOCH in info.reasons}
        for choice in (select.newest(self._found), select.best_of(self._found)):
            stays |= {*choice.skipped, *([choice.info.path] if choice.info else [])}
        for run_id in {info.run_id for info in self}:
            run = [info for info in self if info.run_id == run_id and info.kind != Reason.MANUAL]
            resumable = [info for info in run if not info.weights_only] or run
            stays |= _kept(list(reversed(resumable)), keep_last) | _kept(select.by_score(run, None), keep_best)
        outdated = [info for info in self if info.path not in stays]
        return [info.path for info in outdated if _is_intact(info)] if dry_run else self._delete(outdated)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Each checkpoint as a plain dictionary, for ``json`` or a data frame."""
        return [info.to_dict() for info in self]

    def plot(self, metric: str | None = None) -> Axes:
        """Plot a metric against the total number of batches in a new figure, one line for each run.

        Args:
            metric: Its name; ``None`` for the monitor of the newest file that has a score.

        Raises:
            ImportError: If matplotlib is not installed.
            MonitorError: If no checkpoint has that metric.
        """
        return table.as_plot(self, metric)

    def __repr__(self) -> str:
        shown = table.as_text(self, self._path) if self else f"no checkpoints at {self._path}"
        return "\n".join([shown, *self._footnote()])

    def _repr_html_(self) -> str:
        shown = table.as_html(self, self._path) if self else f"<p>no checkpoints at {html.escape(self._path)}</p>"
        return "".join([shown, *(f"<p>{html.escape(note)}</p>" for note in self._footnote())])

    def _footnote(self) -> list[str]:
        lost = len(self._found.unreadable)
        return [f"not readable: {lost}; verify() says which and why"] if lost else []

    def _delete(self, outdated: Iterable[CheckpointInfo]) -> list[str]:
        deleted, failures = [], []
        for info in (it for first in outdated for it in (first, *self._found.copies.get(first.path, ()))):
            try:
                if not _is_replaced(info) and _is_intact(info):
                    store_at(parent(info.path)).remove(info.path)
                    deleted.append(info.path)
            except (OSError, CheckpointFileError) as error:
                failures.append((info.path, error))
        self._found.infos[:] = [info for info in self if info.path not in deleted]
        if failures:
            each = "".join(f"\n  {path}: {error}" for path, error in failures)
            raise SaveError(
                f"cannot delete {len(failures)} outdated checkpoints at {self._path}:{each}\n"
                f"Delete these by hand, or prune again later. {len(deleted)} others were deleted."
            ) from failures[0][1]
        return deleted


def _kept(candidates: list[CheckpointInfo], count: int) -> set[str]:
    """The paths of the first ``count`` intact candidates, and of the damaged ones before them."""
    if count == -1:
        return {info.path for info in candidates}
    stays, intact = set(), 0
    for info in candidates:
        if intact == count:
            break
        stays.add(info.path)
        intact += _is_intact(info)
    return stays


def _is_intact(info: CheckpointInfo) -> bool:
    return checkpoint.problem(info.path) is None


def _is_replaced(info: CheckpointInfo) -> bool:
    """Whether the file was deleted, or replaced by another of the same name."""
    try:
        now = read_info(info.path)
    except FileNotFoundError:
        return True
    return (now.run_id, now.created) != (info.run_id, info.created)
