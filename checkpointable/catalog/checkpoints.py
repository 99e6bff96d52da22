"""The checkpoints at or below a path, as a sequence that can be looked through, verified, plotted and pruned."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

from checkpointable._errors import CheckpointFileError, PolicyError, SaveError
from checkpointable.catalog import select, table
from checkpointable.catalog.info import CheckpointInfo, read_info
from checkpointable.catalog.scan import scan
from checkpointable.storage.format import archive
from checkpointable.storage.paths import normalize_path, parent
from checkpointable.storage.stores import store_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Checkpoints(Sequence[CheckpointInfo]):
    """The checkpoints of this library at or below a path, newest last, in the order of ``latest``.

    Their metadata is read once, here; no tensor is. It is how things were at that moment: make another to see what was
    saved since. A slice is a plain list. In a notebook it shows as a table.

    Args:
        path: A directory, a checkpoint file, or a link to either; a local path, or a URL. One that is not there has no
            checkpoints.

    Raises:
        CheckpointFileError: If the path is a file that is not a checkpoint of this library.
        OSError: If the directory cannot be listed.
        RemoteError: If a remote file system does not answer.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = normalize_path(path)
        self._found = scan(path)

    @overload
    def __getitem__(self, index: int) -> CheckpointInfo: ...
    @overload
    def __getitem__(self, index: slice) -> list[CheckpointInfo]: ...
    def __getitem__(self, index: int | slice) -> CheckpointInfo | list[CheckpointInfo]:
        return self._found.infos[index]

    def __len__(self) -> int:
        return len(self._found.infos)

    def latest(self) -> CheckpointInfo | None:
        """The newest that verifies and can be resumed from, as ``checkpointable.latest`` chooses it.

        One that does not verify is passed over with a ``CheckpointableWarning`` that says why.
        """
        choice = select.newest(self._found)
        choice.warn(stacklevel=3)
        return choice.info

    def best(self, monitor: str | None = None) -> CheckpointInfo | None:
        """The best that verifies, as ``checkpointable.best`` chooses it.

        One that does not verify is passed over with a ``CheckpointableWarning`` that says why.

        Args:
            monitor: The quantity that decides; ``None`` means the one that the newest scored file was judged by.
        """
        choice = select.best_of(self._found, monitor)
        choice.warn(stacklevel=3)
        return choice.info

    def verify(self) -> dict[str, str | None]:
        """What is wrong with each file, ``None`` if nothing is. Reads all of them through.

        ``*.ckpt`` files that do not tell what they are (and folders that cannot be listed) come last. Those of plain
        Lightning are not listed: without metadata, nobody can say what they should be.
        """
        unreadable = {lost.path: lost.problem for lost in self._found.unreadable}
        return {**{info.path: archive.problem(info.path) for info in self}, **unreadable}

    def prune(self, *, keep_last: int = 1, keep_best: int = 1, dry_run: bool = True) -> list[str]:
        """Delete what no longer needs to be there: of each run, all but its newest and its best.

        Only files that verify count as kept. Never deleted: the file that ``latest`` or ``best`` returns, files that
        were seen not to verify (``verify`` says why), files that somebody saved by name (kind ``"manual"``), files
        replaced since they were listed, and everything that this library did not write.

        Args:
            keep_last: How many of the newest stay, of each run; 0 = none, -1 = all.
            keep_best: How many of the best stay, of each run, by what its newest scored file was judged by; likewise.
            dry_run: Delete nothing, only say what would go.

        Returns:
            The paths of the files that went, or would go, oldest first.

        Raises:
            PolicyError: If a number cannot be used.
            SaveError: If a file could not be deleted. All others were; the message names each that was not.
        """
        _check(keep_last=keep_last, keep_best=keep_best)
        stays = {info.path for info in self if info.kind == "manual"}
        for choice in (select.newest(self._found), select.best_of(self._found)):
            stays |= {*choice.skipped, *([choice.info.path] if choice.info else [])}
        for run in self._runs():
            resumable = [info for info in run if not info.weights_only] or run
            stays |= _kept(list(reversed(resumable)), keep_last) | _kept(select.by_score(run, None), keep_best)
        outdated = [info for info in self if info.path not in stays]
        return [info.path for info in outdated] if dry_run else self._delete(outdated)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Each as a plain dictionary, for ``json`` or a data frame."""
        return [info.to_dict() for info in self]

    def plot(self, metric: str | None = None) -> Axes:
        """A metric against the batches done in all, one line for each run, in a figure of its own.

        Args:
            metric: Its name; ``None`` means the one that the newest scored file was judged by.

        Returns:
            The matplotlib axes.

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

    def _runs(self) -> Iterable[list[CheckpointInfo]]:
        runs: dict[str, list[CheckpointInfo]] = {}
        for info in self:
            if info.kind != "manual":
                runs.setdefault(info.run_id, []).append(info)
        return runs.values()

    def _delete(self, outdated: Iterable[CheckpointInfo]) -> list[str]:
        went, failures = [], []
        for info in outdated:
            try:
                if _is_replaced(info):
                    continue
                store_at(parent(info.path)).remove(info.path)
            except (OSError, CheckpointFileError) as error:
                failures.append((info.path, error))
            else:
                went.append(info.path)
        self._found.infos[:] = [info for info in self if info.path not in went]
        if failures:
            each = "".join(f"\n  {path}: {error}" for path, error in failures)
            raise SaveError(
                f"cannot delete {len(failures)} outdated checkpoints at {self._path}:{each}\n"
                f"The other {len(went)} are gone. Delete these by hand, or prune again when they can be deleted."
            ) from failures[0][1]
        return went


def _check(**keep: int) -> None:
    wrong = [f"{name}={count!r}" for name, count in keep.items() if not isinstance(count, int) or count < -1]
    if wrong:
        raise PolicyError(f"cannot prune with {', '.join(wrong)}; allowed: a count from 0 on, or -1 to keep all.")


def _kept(candidates: list[CheckpointInfo], count: int) -> set[str]:
    """The first so many that verify, and those before them that do not."""
    if count == -1:
        return {info.path for info in candidates}
    stays, whole = set(), 0
    for info in candidates:
        if whole == count:
            break
        stays.add(info.path)
        whole += archive.problem(info.path) is None
    return stays


def _is_replaced(info: CheckpointInfo) -> bool:
    """Whether the file is gone by now, or is another one of the same name."""
    try:
        now = read_info(info.path)
    except FileNotFoundError:
        return True
    return (now.run_id, now.created) != (info.run_id, info.created)
