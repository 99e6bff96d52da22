"""One save: ``SaveRequest`` says what is saved and why, ``SaveTask`` makes the file, ``SaveResult`` is the outcome.

A task runs in the background, and always in this order: the new file is durable, then the pointers move, then outdated
files are deleted. Never deleted: the file resumed from, the newest file, and anything this run did not write.
"""

from __future__ import annotations

import errno
import itertools
import pickle
from collections.abc import Callable, Container, Iterable, Mapping, Set
from dataclasses import asdict, dataclass, field

from lightning_utilities.core.rank_zero import rank_zero_warn

from checkpointable._errors import CheckpointableWarning, SaveError
from checkpointable.catalog.info import metadata_of
from checkpointable.policy import names
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.policy.reasons import Reason
from checkpointable.policy.retention import SavedFile
from checkpointable.saving import pointers, room, weights_alone
from checkpointable.saving.kept_files import KeptFiles
from checkpointable.storage.commit import NotSyncedError
from checkpointable.storage.files import freed_bytes
from checkpointable.storage.paths import is_remote
from checkpointable.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class SaveRequest:
    """What is saved, and why. One file serves all ``reasons``.

    ``score`` is the monitored value on exactly these weights, if they are among the best. ``base_name`` is the name of
    the file without version and suffix.
    """

    run_id: str
    lineage: Lineage
    position: Position
    reasons: Set[Reason]
    score: float | None
    weights_only: bool
    base_name: str

    def file_at(self, path: str) -> SavedFile:
        """The requested file, once it is at this path."""
        return SavedFile(
            path=path,
            position=self.position,
            reasons=self.reasons,
            score=self.score,
            weights_only=self.weights_only,
        )


def base_name(options: Options, position: Position, metrics: Mapping[str, float], *, is_best: bool) -> str:
    """The name of a file by its template, without version and suffix.

    Raises:
        PolicyError: If a template does not fit what was logged.
    """
    template = options.best_filename if is_best else options.filename
    values: dict[str, int | float | str] = {**metrics, **asdict(position), "monitor": options.monitor or ""}
    name = names.render(template, values, insert_names=options.auto_insert_metric_name)
    if not names.is_too_long(name):
        return name
    short = Options.filename if not is_best else f"{names.BEST}_{Options.filename}"
    rank_zero_warn(
        f"the template {template!r} gives names longer than {names.MOST_BYTES} bytes, which file systems refuse."
        f" Such checkpoints are named by {short!r} instead. Choose a shorter template.",
        category=CheckpointableWarning,
    )
    return names.render(short, values)


@dataclass(frozen=True, kw_only=True)
class SaveResult:
    """The outcome of a save: the new file's ``path``, or the ``problem``, or neither but ``retry`` at once."""

    request: SaveRequest
    kept: KeptFiles
    path: str | None = None
    problem: str | None = None
    messages: list[str] = field(default_factory=list)
    retry: bool = False


@dataclass(kw_only=True)
class SaveTask:
    """Makes one file, on rank 0. Once started, only the background thread uses it.

    ``write(path, overwrite=...)`` makes the file durable; ``size`` is in bytes, ``None`` if unknown. ``on_durable`` is
    called with the files that are durable, before any is deleted. What ``held`` returns is not deleted now.
    ``first_version`` is the first that is tried of the name.
    """

    store: Store
    write: Callable[..., None]
    size: int | None
    request: SaveRequest
    kept: KeptFiles
    options: Options
    resumed_from: str | None
    on_durable: Callable[[KeptFiles], None] = lambda kept: None
    held: Callable[[], Set[str]] = set
    first_version: int = 0
    messages: list[str] = field(default_factory=list)
    _present: Container[str] = field(default=(), init=False)

    def run(self) -> SaveResult:
        """Save. An error of the file system or of memory becomes the result's problem; any other is raised."""
        path = problem = None
        try:
            first = self.store.path(names.versioned(self.request.base_name, self.first_version))
            self._present = self.store.present([*self.kept.kept, first])
            self._forget_missing()
            self._make_room()
            path = self._write_or_free()
        except (OSError, MemoryError) as error:
            problem = str(error) or type(error).__name__
            if self.store.directory not in problem:  # an error of an open file has no path in it
                problem = f"{self.store.directory}: {problem}"
        else:
            self._publish(self.kept.add(self.request.file_at(path)))
            self.kept = self.kept.without_outdated(but=self._delete(self.kept.outdated))
        return SaveResult(request=self.request, kept=self.kept, path=path, problem=problem, messages=self.messages)

    def _forget_missing(self) -> None:
        here = (path for path in self.kept.kept if self.store.contains(path) or not is_remote(path))
        missing = sorted(path for path in here if path not in self._present)
        if missing:
            self.kept = self.kept.without(missing)
            self.messages.append(
                f"checkpoints of this run are gone: {', '.join(missing)}. Another process or a user deleted them."
                " Saving continues without them."
            )

    def _publish(self, kept: KeptFiles) -> None:
        """Move the pointers to what is durable now, and call ``on_durable``, before anything is deleted."""
        self.kept = kept
        if self.options.save_last:
            for role, target in ((names.LAST, kept.last_path), (names.BEST, kept.best_path)):
                self.messages += pointers.move(self.store, role, target, self.request.run_id)
        self.on_durable(kept)

    def _make_room(self) -> None:
        """Make sure that the file fits, as far as other files may go for it."""
        free = self.store.free_bytes()
        if self.size is None or free is None:
            return
        if all(file.weights_only > self.request.weights_only for file in self.kept.files):
            self.messages += room.warning_of_little(
                self.store, self.options, free, self.size, weights_only=self.request.weights_only
            )
        deleted: list[str] = []
        if free < self.size:
            deleted = self._free(self.size - free)
            free = self.store.free_bytes()
        if free is not None and free < self.size:
            tried = f"; deleted to make room: {', '.join(deleted)}" if deleted else ""
            raise SaveError(
                f"no room in {self.store.directory}: a checkpoint takes {self.size:,} bytes, {free:,} are free,"
                f" {self.size - free:,} are missing{tried}"
            )

    def _free(self, missing: int) -> list[str]:
        """Free so many bytes and return what was deleted; if all that may go is not enough, nothing is touched."""
        may_go = room.may_go(self.store, self.kept, self.request.file_at(_NEW), self._own)
        needed = missing
        if may_go.total < needed:
            return []
        deleted: list[str] = []
        for path, freed in may_go.outdated.items():
            if missing > 0 and self._give_up(path):
                deleted.append(path)
                missing -= freed
        for path in may_go.best:
            if missing > 0 and path not in self.kept.of_weights:
                missing -= self._reduce(path, needed)
        for path in may_go.best:
            if missing > 0:
                freed = freed_bytes(path)
                if self._give_up(path):
                    deleted.append(path)
                    missing -= freed
                    self.messages.append(
                        f"the best checkpoint {path} was deleted to make room for the next one: the newest stays until"
                        f" that one is on disk. Free at least {needed:,} bytes in {self.store.directory} to keep both."
                    )
        return deleted

    def _reduce(self, path: str, needed: int) -> int:
        """Reduce one of the best files to its weights, and return how many bytes that frees."""
        before = freed_bytes(path)
        try:
            notes = weights_alone.reduce_to_weights(self.store, path)
        except (OSError, MemoryError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            self.messages.append(f"{path} cannot be reduced to its weights: {error or type(error).__name__}.")
            return 0
        self._publish(self.kept.reduced(path))
        self.messages.append(
            f"the best checkpoint {path} was reduced to its weights to make room for the next one.{notes} Free at least"
            f" {needed:,} bytes in {self.store.directory} to keep best checkpoints whole."
        )
        return before - freed_bytes(path)

    def _give_up(self, path: str) -> bool:
        """Delete a file that the run keeps, after the links to it have moved; whether it is gone."""
        before = self.kept
        self._publish(before.without([path]))
        self._delete([path])
        if self.store.exists(path):
            self.kept = before
            return False
        return True

    def _write_or_free(self) -> str:
        """Write the file; if the disk is full, or a quota that no one can ask for is used up, free its size first."""
        try:
            return self._write()
        except OSError as error:
            if error.errno not in _FULL or self.size is None or not self._free(self.size):
                raise
        return self._write()

    def _write(self) -> str:
        """Write the file under the first free name. One that the new file replaces is free, if that is safe."""
        replaced = self.kept.replaced_by(self.request.file_at(_NEW)) if self.store.overwrites_safely else set()
        refused = 0
        for version in itertools.count(self.first_version):
            path = self.store.path(names.versioned(self.request.base_name, version))
            overwrite = path in replaced and path != self.resumed_from and self._is_surely_own(path)
            if path in self._present and not overwrite:
                continue
            try:
                self.write(path, overwrite=overwrite)
            except FileExistsError as error:  # taken a moment ago
                refused += 1
                if refused == _MOST_REFUSED:
                    raise SaveError(
                        f"{self.store.directory}: {refused} names were free and are said to be taken, {path} the last."
                        " Look at what answers for this place, or choose another dirpath."
                    ) from error
            except NotSyncedError as error:
                self.messages.append(f"{path} is saved, but its name is not durable: {error}. A power cut may lose it.")
                return path
            else:
                return path
        raise AssertionError("not reached")

    def _delete(self, outdated: Iterable[str]) -> set[str]:
        """Delete files of this run. Returns those that could not be deleted now, which are tried again."""
        outdated = set(outdated)
        later = outdated & self.held()
        for path in sorted(self._deletable(outdated) - later):
            try:
                if is_own(path, self.store, self.request):
                    self.store.remove(path)
                elif self.size is not None and path in self._present and metadata_of(path) is None:
                    self.messages.append(f"{path} is outdated, but stays as it is damaged. Delete it by hand.")
            except OSError as error:
                later.add(path)
                self.messages.append(
                    f"cannot delete the outdated checkpoint {path}: {error}. The next save tries again."
                )
        return later

    def _own(self, paths: Iterable[str]) -> set[str]:
        """Those that this run wrote here and has not resumed from, as far as they can be read."""
        return {path for path in self._deletable(paths) if self._is_surely_own(path)}

    def _deletable(self, paths: Iterable[str]) -> set[str]:
        stays = {self.resumed_from, *self.held()}
        return {path for path in paths if path not in stays and self.store.contains(path)}

    def _is_surely_own(self, path: str) -> bool:
        try:
            return is_own(path, self.store, self.request)
        except OSError:
            return False


def is_own(path: str, store: Store, request: SaveRequest) -> bool:
    """Whether the run of a request wrote the file that is there now; ``OSError`` if that cannot be read."""
    metadata = metadata_of(path)
    if metadata is None:
        return False
    if metadata.base_name is not None and not names.is_version(path, store.path(metadata.base_name)):
        return False  # a copy, or a file of another directory
    descends = request.lineage.includes(metadata.lineage.attempt, metadata.batches)
    return descends and metadata.run_id == request.run_id and metadata.kind != Reason.MANUAL


_MOST_REFUSED = 100
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NEW = "\0the file about to be written"
