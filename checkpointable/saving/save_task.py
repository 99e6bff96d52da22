"""One save: ``SaveRequest`` says what is saved and why, ``SaveTask`` makes the file, ``SaveResult`` is the outcome.

A task runs in the background, and always in this order: the new file is durable, then the pointers move, then outdated
files are deleted. Never deleted: the file resumed from, the newest file, and anything this run did not write.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Set
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
from checkpointable.saving import pointers
from checkpointable.saving.kept_files import KeptFiles
from checkpointable.storage.commit import NotSyncedError
from checkpointable.storage.files import freed_bytes
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
    metrics: Mapping[str, float]
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
    called with the files that are durable, before any is deleted.
    """

    store: Store
    write: Callable[..., None]
    size: int | None
    request: SaveRequest
    kept: KeptFiles
    options: Options
    resumed_from: str | None
    on_durable: Callable[[KeptFiles], None] = lambda kept: None
    messages: list[str] = field(default_factory=list)

    def run(self) -> SaveResult:
        """Save. An error of the file system or of memory becomes the result's problem; any other is raised."""
        path = problem = None
        try:
            self._forget_missing()
            self._make_room()
            path = self._write()
        except (OSError, MemoryError) as error:
            problem = str(error) or type(error).__name__
            if self.store.directory not in problem:  # an error of an open file has no path in it
                problem = f"{self.store.directory}: {problem}"
        else:
            self._publish(self.kept.add(self.request.file_at(path)))
            self._delete(self.kept.outdated)
            self.kept = self.kept.without_outdated()
        return SaveResult(request=self.request, kept=self.kept, path=path, problem=problem, messages=self.messages)

    def _forget_missing(self) -> None:
        missing = [path for path in sorted(self.kept.kept) if not self.store.exists(path)]
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
        """Make sure that the file fits. Files that it makes outdated are deleted first, if that is enough."""
        free = self.store.free_bytes()
        if self.size is None or free is None:
            return
        if all(file.weights_only > self.request.weights_only for file in self.kept.files):
            self._warn_of_little_space(free, self.size)
        to_delete = self._enough_to_delete(self.size - free) if free < self.size else []
        deleted: list[str] = []
        if to_delete:
            before = self.kept
            self._publish(before.without(to_delete))
            self._delete(to_delete)
            deleted = [path for path in to_delete if not self.store.exists(path)]
            self.kept = before.without(deleted)
            free = self.store.free_bytes()
        if free is not None and free < self.size:
            tried = f"; deleted to make room: {', '.join(deleted)}" if deleted else ""
            raise SaveError(
                f"no room in {self.store.directory}: a checkpoint takes {self.size:,} bytes, {free:,} are free,"
                f" {self.size - free:,} are missing{tried}"
            )

    def _enough_to_delete(self, missing: int) -> list[str]:
        """Outdated files that free so many bytes while an intact file stays; none if that is not possible.

        If there are files to resume from, the one that stays is one of them. The best ones are chosen last: no later
        save can make them again.
        """
        outdated, best = self._own(self.kept.replaced_by(self.request.file_at(_NEW))), self.kept.scores
        in_order = sorted(outdated, key=lambda path: (path in best, path == self.kept.last_path, path))
        freed = {path: freed_bytes(path) for path in in_order}
        kept = self.kept.kept & (self.kept.resumable or self.kept.kept)
        for stays in [*sorted(kept - outdated), *(path for path in reversed(in_order) if path in kept)]:
            chosen = _first_that_free({path: size for path, size in freed.items() if path != stays}, missing)
            if chosen and self.store.problem(stays) is None:
                return chosen
        return []

    def _warn_of_little_space(self, free: int, size: int) -> None:
        """Before the first file of its kind: warn if there is not enough room for all that will be kept."""
        counts = self.options.most_files(weights_only=self.request.weights_only)
        count = sum(counts.values()) + 1
        if -1 not in counts.values() and free < count * size:
            self.messages.append(
                f"{self.store.directory} has {free:,} bytes free, and up to {count} checkpoints of {size:,} bytes will"
                f" be there at once ({' + '.join(counts)} + 1): {count * size - free:,} are missing. Free space, keep"
                " fewer, or choose another dirpath."
            )

    def _write(self) -> str:
        replaceable = self.kept.replaced_by(self.request.file_at(_NEW)) - {self.resumed_from}
        version = 0
        while True:
            path = self.store.path(names.versioned(self.request.base_name, version))
            try:
                self.write(path, overwrite=path in replaceable and self._is_own(path))
            except FileExistsError:
                version += 1
            except NotSyncedError as error:
                self.messages.append(f"{path} is saved, but its name is not durable: {error}. A power cut may lose it.")
                return path
            else:
                return path

    def _delete(self, outdated: Iterable[str]) -> None:
        for path in sorted(self._own(outdated)):
            try:
                self.store.remove(path)
            except OSError as error:
                self.messages.append(
                    f"cannot delete the outdated checkpoint {path}: {error}. It stays; delete it by hand."
                )

    def _own(self, paths: Iterable[str]) -> set[str]:
        """Those that this run wrote here and has not resumed from."""
        return {p for p in paths if p != self.resumed_from and self.store.contains(p) and self._is_own(p)}

    def _is_own(self, path: str) -> bool:
        """Whether this run wrote the file that is there now."""
        metadata = metadata_of(path)
        if metadata is None:
            return False
        descends = self.request.lineage.includes(metadata.lineage.attempt, metadata.batches)
        return descends and metadata.run_id == self.request.run_id and metadata.kind != Reason.MANUAL


_NEW = "\0the file about to be written"


def _first_that_free(sizes: Mapping[str, int], wanted: int) -> list[str]:
    """The first files that free so many bytes together; none if all of them free too little."""
    totals = itertools.accumulate(sizes.values())
    count = next((number for number, total in enumerate(totals, start=1) if total >= wanted), 0)
    return list(sizes)[:count]
