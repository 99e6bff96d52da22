"""What one run has on disk: a save becomes a file, takes its place among the kept ones, and pushes others out.

The order is always the same: the new file is durable, then the links and attributes move, then what no longer belongs
is deleted. Never deleted: the file resumed from, the newest file, and anything this run did not write.
"""

from __future__ import annotations

import itertools
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from checkpointable import _lightning
from checkpointable._errors import CheckpointableWarning, CheckpointFileError, SaveError
from checkpointable.catalog.info import CheckpointInfo, infos
from checkpointable.policy import names
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.policy.which import Best, Newest
from checkpointable.resume.plain import refused
from checkpointable.storage import archive, commit
from checkpointable.storage.checkpoint_io import DurableCheckpointIO, write_checkpoint

_NEW = "\0the file about to be written"


@dataclass(frozen=True, kw_only=True)
class Order:
    """One save: why, of what, and what its name may say.

    Attributes:
        reasons: Every condition that came due; one file serves them all.
        position: Where the run stands.
        metrics: Logged scalars, for the name and the metadata.
        score: The monitored value on exactly these weights, if it makes this file one of the best.
    """

    reasons: Set[str]
    position: Position
    metrics: Mapping[str, float]
    score: float | None = None


class Saver:
    """Saves, keeps and deletes the files of one run. Only rank 0 touches the disk; every rank knows the outcome."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.directory: Path | None = None
        self.run_id = ""
        self.resumed_from: Path | None = None
        self.best = Best(keep=options.save_top_k, mode=options.mode, min_delta=options.min_delta)
        self.newest = Newest(keep=options.save_last_k)
        self.last_path = ""
        self.saved: Position | None = None
        self.saved_reasons: Set[str] = frozenset()
        self._written: set[str] = set()
        self._named: set[str] = set()

    def start(self, trainer: Trainer, run_id: str, position: Position) -> None:
        """Find and try the directory, and take up what this run has saved there before.

        Raises:
            SaveError: If the directory cannot be used.
        """
        resumed_from = _lightning.resume_path(trainer)
        self.run_id = run_id
        self.directory, self.resumed_from, found = self._on_rank_zero(
            trainer, lambda: self._look(trainer, resumed_from)
        )
        if resumed_from is not None:
            self._take_up([info for info in found if info.run_id == run_id], position)

    def save(self, trainer: Trainer, order: Order) -> None:
        """Save, and put the kept files in order. Collective: every rank calls it.

        Raises:
            SaveError: If the file could not be made durable. Nothing has changed then.
        """
        checkpoint = _lightning.dump(trainer, weights_only=self.options.save_weights_only)
        path, gone = self._on_rank_zero(trainer, lambda: self._write(trainer, checkpoint, order))
        self.best, self.newest = self.best.without(gone), self.newest.without(gone)
        before = self.kept
        self.saved, self.saved_reasons = order.position, order.reasons
        self.last_path = path
        self._written.add(path)
        if order.score is not None:
            self.best = self.best.add(path, order.score)
        if order.reasons - {"best"}:
            self.newest = self.newest.add(path)
        if trainer.is_global_zero:
            self._point()
            self._delete((before | self._written) - self.kept)
        self._written &= self.kept

    def has(self, position: Position, due: Set[str]) -> bool:
        """Whether this moment is saved already; if it is to be one of the best, or the end of an epoch: as that."""
        if self.saved != position or ("best" in due and self.last_path not in self.best.scores):
            return False
        return "epoch" not in due or self.saved_reasons.isdisjoint({"interval", "step", "time"})

    @property
    def kept(self) -> set[str]:
        """The files that stay."""
        return {*self.best.scores, *self.newest.names, self.last_path} - {""}

    def _look(self, trainer: Trainer, resumed_from: Path | None) -> tuple[Path, Path | None, list[CheckpointInfo]]:
        if self.options.dirpath is not None:
            directory = Path(os.path.expanduser(self.options.dirpath))
        elif resumed_from is not None:
            directory = resumed_from.parent
        else:
            directory = _lightning.checkpoint_directory(trainer)
        directory = Path(os.path.realpath(directory))  # one name for one place: what is kept is compared by name
        below = "/" in self.options.filename + self.options.best_filename
        commit.prepare(directory, below=below)
        if resumed_from is None:
            return directory, None, []
        places = {directory, resumed_from.parent}
        return directory, resumed_from, [info for place in places for info in infos(place, below=below)]

    def _take_up(self, mine: Iterable[CheckpointInfo], position: Position) -> None:
        """The lists as they were, read from the files themselves. Files later than the one resumed from are let be."""
        self.best = Best(keep=self.best.keep, mode=self.best.mode, min_delta=self.best.min_delta)
        self.newest = Newest(keep=self.newest.keep)
        past = sorted(
            (info for info in mine if info.kind != "manual" and info.at <= position), key=lambda info: info.at
        )
        for info in past:
            if info.score is not None and (info.monitor, info.mode) == (self.options.monitor, self.options.mode):
                self.best = self.best.add(info.path, info.score)
            if set(info.reasons) - {"best"}:
                self.newest = self.newest.add(info.path)
        self.last_path = past[-1].path if past else ""
        self.saved = past[-1].at if past and past[-1].at == position else None
        judged_otherwise = {info.path for info in past if info.monitor not in (None, self.options.monitor)}
        self._written = {info.path for info in past} - judged_otherwise

    def _write(self, trainer: Trainer, checkpoint: dict[str, Any], order: Order) -> tuple[str, list[str]]:
        """The path of the new file, and those of kept ones that somebody else has deleted."""
        assert self.directory is not None
        self._name_what_is_refused(checkpoint)
        gone = [path for path in sorted(self.kept) if not os.path.exists(path)]
        if gone:
            _warn(f"somebody else has deleted checkpoints of this run: {', '.join(gone)}. Saving goes on without them.")
        stem = self._stem(order)
        for version in itertools.count():
            path = self.directory / names.versioned(stem, version)
            try:
                self._store(trainer, checkpoint, path, overwrite=self._may_replace(path, order))
            except FileExistsError:
                continue
            return str(path), gone
        raise AssertionError("unreachable: versions do not end")

    def _name_what_is_refused(self, checkpoint: dict[str, Any]) -> None:
        found = {at: kind for at, kind in refused(checkpoint) if at not in self._named}
        self._named.update(found)
        for at, kind in found.items():
            _warn(
                f"checkpoint{at} is a {kind}, which torch.load(weights_only=True) refuses, and so does Trainer.fit("
                "ckpt_path=...) by itself. Save a plain value there, or resume with Trainer.fit(weights_only=False)."
            )

    def _store(self, trainer: Trainer, checkpoint: dict[str, Any], path: Path, *, overwrite: bool) -> None:
        """Through our commit, or through the ``CheckpointIO`` that the user chose."""
        if isinstance(_lightning.own_checkpoint_io(trainer), DurableCheckpointIO):
            write_checkpoint(checkpoint, path, overwrite=overwrite)
            return
        if os.path.lexists(path) and not overwrite:
            raise FileExistsError(path)
        trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, path)

    def _stem(self, order: Order) -> str:
        options = self.options
        template = options.filename if order.score is None else options.best_filename
        values: dict[str, int | float | str] = {**order.metrics, **order.position.to_dict()}
        values["monitor"] = options.monitor or ""
        return names.render(template, values, insert_names=options.auto_insert_metric_name)

    def _may_replace(self, path: Path, order: Order) -> bool:
        """Whether a file of that name is ours, and not one that stays after this save."""
        best = self.best if order.score is None else self.best.add(_NEW, order.score)
        newest = self.newest.add(_NEW) if order.reasons - {"best"} else self.newest
        stays = {*best.scores, *newest.names, str(self.resumed_from)}
        return str(path) in self._written - stays and self._is_mine(path)

    def _is_mine(self, path: Path) -> bool:
        """Whether this run wrote a file, and nobody has since written another of that name."""
        return path.is_file() and _owner(path) == (self.run_id, False)

    def _point(self) -> None:
        """Move ``last.ckpt`` and ``best.ckpt``."""
        if not self.options.save_last:
            return
        for role, target in ((names.LAST, self.last_path), (names.BEST, self.best.name)):
            if target and os.path.exists(target):
                link = self._free_link(role)
                try:
                    commit.point(link, Path(target))
                except OSError as error:
                    _warn(f"cannot move {link} to {target}: {error}. The checkpoint itself is safe.")

    def _free_link(self, role: str) -> Path:
        assert self.directory is not None
        candidates = (self.directory / names.versioned(role, version) for version in itertools.count())
        return next(link for link in candidates if self._is_free(link))

    def _is_free(self, link: Path) -> bool:
        if not os.path.lexists(link) or not link.exists():
            return True
        run_id, manual = _owner(link)
        return run_id == self.run_id and (link.is_symlink() or not manual)

    def _delete(self, outdated: Iterable[str]) -> None:
        for path in sorted(set(outdated) - {str(self.resumed_from)}):
            if Path(path).is_relative_to(self.directory or "") and self._is_mine(Path(path)):
                try:
                    commit.remove(Path(path))
                except OSError as error:
                    _warn(f"cannot delete the outdated checkpoint {path}: {error}. It stays; delete it by hand.")

    def _on_rank_zero(self, trainer: Trainer, work: Any) -> Any:
        """Do something on rank 0 and give every rank its result, or its failure."""
        result, failure = None, None
        if trainer.is_global_zero:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001  # whatever it is, every rank hears of it; it is raised below
                failure = error
        result, message = trainer.strategy.broadcast((result, None if failure is None else str(failure)))
        if failure is not None and not isinstance(failure, OSError):
            raise failure
        if message is not None:
            raise SaveError(message) from failure
        return result


def _is_copy(path: str) -> bool:
    """Whether a file stands where a link would, on a file system without links."""
    return (
        re.fullmatch(rf"({names.LAST}|{names.BEST})(-v\d+)?{re.escape(names.SUFFIX)}", os.path.basename(path))
        is not None
    )


def _owner(path: Path) -> tuple[str | None, bool]:
    """The run that wrote a file, and whether somebody asked for that file by name."""
    try:
        metadata = archive.read_metadata(path)
    except (CheckpointFileError, OSError):
        return None, False
    return metadata.get("run_id"), metadata.get("kind") == "manual"


def _warn(message: str) -> None:
    warnings.warn(message, CheckpointableWarning, stacklevel=2)
