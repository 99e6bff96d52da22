"""The checkpoints at or below a path, as a sequence that can be filtered, verified, plotted and pruned."""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from checkpointable._errors import CheckpointableWarning
from checkpointable.catalog import filters, plot, pruning, rows, select, table
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import Found, Unreadable, scan
from checkpointable.catalog.verification import Verification, with_bar
from checkpointable.storage.paths import Paths, normalize_paths

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Checkpoints(Sequence[CheckpointInfo]):
    """The checkpoints of this library at or below a path, newest last, in the order of ``latest``.

    Their metadata is read once, by the constructor, without reading tensors. Make a new one to include files saved
    since, and to leave out files deleted since. ``where``, ``runs`` and slices give some of them, as a sequence of the
    same kind that reads nothing again. A notebook shows it as a table.

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
        self._places = normalize_paths(path)
        self._path, self._whole = ", ".join(self._places), scan(self._places)
        self._infos = self._whole.infos
        self._conditions: tuple[str, ...] = ()
        self._damaged: dict[str, str] = {}  # what ``verify`` has found
        for why in self._whole.unreached:
            warnings.warn(f"{why} What is there is not listed.", CheckpointableWarning, stacklevel=2)

    @overload
    def __getitem__(self, index: int) -> CheckpointInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Checkpoints: ...
    def __getitem__(self, index: int | slice) -> CheckpointInfo | Checkpoints:
        return self._some(self._infos[index]) if isinstance(index, slice) else self._infos[index]

    def __len__(self) -> int:
        return len(self._infos)

    def where(self, **conditions: Any) -> Checkpoints:
        """Those that fulfil all conditions. Files that cannot be read fulfil none.

        ::

            checkpoints.where(kind="best", epoch=slice(3, None))
            checkpoints.where(kind=("best", "epoch"), created=slice(datetime(2026, 11, 27), None))
            checkpoints.where(metrics=lambda metrics: metrics.get("val_acc", 0) > 0.9)

        Args:
            conditions: For fields of ``CheckpointInfo``, or ``attempt`` or ``generation`` of its lineage: a value; a
                list, tuple or set of values; a slice, from its start and before its stop; or a function of the value
                that says whether it fits. ``created`` may be a ``datetime``, or a ``date`` for a day of this
                machine's zone. One reason or verdict that fits is enough.

        Raises:
            UnknownArgumentError: If there is no field of a name. The message names all.
            PolicyError: If a condition cannot be applied to its field.
        """
        conditions = filters.repeatable(conditions)
        return self._some(filters.matching(self, conditions), filters.in_words(conditions))

    def runs(self) -> dict[str, Checkpoints]:
        """The checkpoints of each run, by its id; the run whose newest file was written last comes last."""
        ids = dict.fromkeys(info.run_id for info in self._in_order())
        return {run_id: self._some([info for info in self if info.run_id == run_id], f"{run_id=}") for run_id in ids}

    def latest(self) -> CheckpointInfo | None:
        """The newest intact checkpoint that can be resumed from, chosen like by ``checkpointable.latest``.

        A damaged file is skipped with a ``CheckpointableWarning`` that says why.
        """
        choice = select.newest(self._found())
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
        choice = select.best_of(self._found(), monitor)
        choice.warn(stacklevel=3)
        return choice.info

    def verify(self) -> Verification:
        """Read every file, and say what is wrong with each; ``None`` for an intact one.

        ``print`` shows how many are intact, and what is wrong with the others. ``*.ckpt`` files that may be damaged
        checkpoints, and folders that cannot be listed, come last. Files written by plain Lightning are left out: they
        have no metadata. On a terminal or in a notebook, a bar shows the progress over more than 1 GB.
        """
        unreadable = {lost.path: lost.problem for lost in self._unreadable}
        found = Verification({info.path: info.verify() for info in with_bar(list(self))})
        for path in found:
            self._damaged.pop(path, None)
        self._damaged.update(found.damaged)
        return Verification({**found, **unreadable})

    def prune(self, *, keep_last: int = 1, keep_best: int = 1, dry_run: bool = True) -> list[str]:
        """Delete outdated checkpoints: of each run, all but its newest and its best of those listed here.

        Only intact files count as kept, and each file is read to its end before it is deleted. These are never deleted:
        the file that ``latest`` or ``best`` of the whole path returns, files kept for ever (reason ``"kept_epoch"``),
        files saved by name (kind ``"manual"``), damaged files (``verify`` says why), files replaced since they were
        listed, and everything that this library did not write.

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
        outdated = pruning.outdated(self._in_order(), self._whole, keep_last=keep_last, keep_best=keep_best)
        if dry_run:
            return [info.path for info in outdated if info.verify() is None]
        deleted, failure = pruning.delete(outdated, self._whole.copies, self._path)
        for infos in (self._whole.infos, self._infos):
            infos[:] = [info for info in infos if info.path not in deleted]
        if failure is not None:
            raise failure
        return deleted

    def to_dicts(self) -> list[dict[str, Any]]:
        """Each checkpoint as a flat dictionary, for ``json``, or as in ``pandas.DataFrame(checkpoints.to_dicts())``."""
        return [info.to_dict() for info in self]

    def plot(self, metric: str | None = None) -> Axes:
        """Plot a metric against the total number of batches in a new figure, one line for each run.

        The newest file of a run tells all that was measured up to it, also where files are deleted by now, and where
        the run was resumed. Files that are there are marked, and the best of each run is ringed. On the axis lie those
        at whose position the metric was not measured.

        Args:
            metric: Its name; ``None`` for the monitor of the newest file that has a score.

        Raises:
            ImportError: If matplotlib is not installed.
            MonitorError: If no run has measured that metric. The message names what was measured.
        """
        return plot.as_plot(self._in_order(), metric)

    def report(self, target: str | os.PathLike[str], *, verify: bool | None = None) -> None:
        """Write one HTML file that shows the runs at the whole path to others; it loads nothing.

        Args:
            target: A local path that ends in ``.html``. A page of that name is replaced.
            verify: Whether all bytes of all files are read to find damage; ``None``: if the files are local, and have
                2 GiB or less in all. The page says what was done.

        Raises:
            PolicyError: If the target is a URL, a directory, or does not end in ``.html`` or ``.htm``.
            CheckpointFileError: If there is no checkpoint at the path.
            OSError: If the directory cannot be listed, or the page cannot be written.
            RemoteError: If a remote file system does not answer.
        """
        from checkpointable.catalog.report import write_report

        write_report(self._places, target, verify=verify)

    def __repr__(self) -> str:
        shown = table.as_text(self, self._path, **self._marked()) if self else self._none()
        return "\n".join([shown, *self._footnote()])

    def _repr_html_(self) -> str:
        shown = table.as_html(self, self._path, **self._marked()) if self else f"<p>{html.escape(self._none())}</p>"
        return "".join([shown, *(f"<p>{html.escape(note)}</p>" for note in self._footnote())])

    def _marked(self) -> dict[str, Any]:
        return {"marks": rows.marks_of(self._in_order(), self._damaged), "unreadable": self._unreadable}

    def _none(self) -> str:
        if not self._conditions:
            return f"no checkpoints at {self._path}"
        return f"none of the {len(self._whole.infos)} checkpoints at {self._path}: {', '.join(self._conditions)}"

    def _footnote(self) -> list[str]:
        lost = len(self._unreadable)
        return [f"not readable: {lost}; verify() says which and why"] if lost else []

    @property
    def _unreadable(self) -> list[Unreadable]:
        return [] if self._conditions else self._whole.unreadable

    def _in_order(self) -> list[CheckpointInfo]:
        """Newest last, also where a slice has turned them round."""
        listed = {info.path for info in self}
        return [info for info in self._whole.infos if info.path in listed]

    def _found(self) -> Found:
        return replace(self._whole, infos=self._in_order(), unreadable=self._unreadable)

    def _some(self, infos: Iterable[CheckpointInfo], condition: str = "a slice") -> Checkpoints:
        some = object.__new__(type(self))
        some.__dict__.update(vars(self))
        some._infos, some._conditions = list(infos), (*self._conditions, condition)
        return some
