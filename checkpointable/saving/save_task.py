"""The part of a save that can be done in the background: room, name, commit, links, and the end of what is outdated.

The order is always the same: the new file is durable, then the links move, then what no longer belongs is deleted.
Never deleted: the file resumed from, the newest file, and anything this run did not write.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from checkpointable._errors import CheckpointFileError, SaveError
from checkpointable.catalog.metadata import FileMetadata
from checkpointable.policy import names
from checkpointable.policy.lineage import UNKNOWN, Lineage
from checkpointable.policy.options import Options
from checkpointable.policy.reasons import Reason
from checkpointable.saving.kept_files import Order, Shelf, base_name
from checkpointable.storage.files import freed_bytes
from checkpointable.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a save.

    Attributes:
        order: What was to be saved.
        shelf: What is kept now.
        path: The new file; ``None`` if there is none.
        problem: Why there is none.
        messages: What the user is to know besides.
        again: Whether it is to be tried again at once, without its having failed.
        seconds: How long it took.
    """

    order: Order
    shelf: Shelf
    path: str | None = None
    problem: str | None = None
    messages: list[str] = field(default_factory=list)
    again: bool = False
    seconds: float = 0.0


@dataclass(kw_only=True)
class Job:
    """One save of one run, on rank 0.

    Attributes:
        store: Where to.
        write: Makes the file durable, under a path, over a file of that name or not.
        size: Bytes that it needs; ``None`` if unknown.
        order: What is saved.
        shelf: What was kept before.
        options: The constructor's arguments.
        run_id: The run.
        lineage: The attempt, and those it descends from.
        resumed_from: The file it has gone on from.
        show: Told what is durable, before anything is deleted.
        messages: What the user is to know.
    """

    store: Store
    write: Callable[[str, bool], None]
    size: int | None
    order: Order
    shelf: Shelf
    options: Options
    run_id: str
    resumed_from: str | None
    lineage: Lineage = UNKNOWN
    show: Callable[[Shelf], None] = lambda shelf: None
    messages: list[str] = field(default_factory=list)

    def __call__(self) -> Outcome:
        """Do it. A file system that refuses is an outcome; anything else is raised."""
        begun = time.monotonic()
        path = problem = None
        try:
            self._notice_what_is_gone()
            self._make_room()
            path = self._write()
        except (OSError, MemoryError) as error:
            problem = str(error) or type(error).__name__
            if self.store.directory not in problem:  # what the system says of an open file does not name it
                problem = f"{self.store.directory}: {problem}"
        else:
            self.shelf = self.shelf.add(path, self.order)
            self._point()
            self.show(self.shelf)
            self._delete(self.shelf.outdated())
            self.shelf = replace(self.shelf, written=self.shelf.written & self.shelf.kept)
        seconds = time.monotonic() - begun
        return Outcome(
            order=self.order,
            shelf=self.shelf,
            path=path,
            problem=problem,
            messages=self.messages,
            seconds=seconds,
        )

    def _notice_what_is_gone(self) -> None:
        gone = [path for path in sorted(self.shelf.kept) if not self.store.exists(path)]
        if gone:
            self.shelf = self.shelf.without(gone)
            self.messages.append(
                f"somebody else has deleted checkpoints of this run: {', '.join(gone)}. Saving goes on without them."
            )

    def _make_room(self) -> None:
        """See that it fits. What would be deleted anyway may go first, if that is enough and a whole file stays."""
        free = self.store.free_bytes()
        if self.size is None or free is None:
            return
        if not self.shelf.last_path:
            self._look_ahead(free, self.size)
        going, gone = self._makes_room(self.size - free) if free < self.size else [], []
        if going:
            before, self.shelf = self.shelf, self.shelf.without(going)
            self._point()
            self.show(self.shelf)
            self._delete(going)
            gone = [path for path in going if not self.store.exists(path)]
            self.shelf = before.without(gone)
            free = self.store.free_bytes() or 0
        if free < self.size:
            tried = f"; deleted to make room: {', '.join(gone)}" if gone else ""
            raise SaveError(
                f"no room in {self.store.directory}: a checkpoint takes {self.size:,} bytes, {free:,} are free,"
                f" {self.size - free:,} are missing{tried}"
            )

    def _makes_room(self, missing: int) -> list[str]:
        """Files that would be deleted anyway and free so many bytes, while a whole one stays; none where it takes more.

        The best go last: of these alone no later save makes another.
        """
        outdated, best = self._mine(self.shelf.replaceable(self.order)), self.shelf.best.scores
        in_turn = sorted(outdated, key=lambda path: (path in best, path == self.shelf.last_path, path))
        freed = {path: freed_bytes(path) for path in in_turn}
        stays_anyway = sorted(self.shelf.kept - outdated)
        for stays in [*stays_anyway, *(path for path in reversed(in_turn) if path in self.shelf.kept)]:
            going = _enough({path: size for path, size in freed.items() if path != stays}, missing)
            if going and self.store.problem(stays) is None:
                return going
        return []

    def _look_ahead(self, free: int, size: int) -> None:
        """Before the first file: whether everything that will be kept has room."""
        options = self.options
        kept = (options.save_top_k if options.ranks else 0) + options.save_last_k + 1
        if -1 not in (options.save_top_k, options.save_last_k) and free < kept * size:
            self.messages.append(
                f"{self.store.directory} has {free:,} bytes free, and up to {kept} checkpoints of {size:,} bytes will"
                f" lie there at a time (save_top_k + save_last_k + 1): {kept * size - free:,} are missing. Free space,"
                " keep fewer, or choose another dirpath."
            )

    def _write(self) -> str:
        name = base_name(self.options, self.order)
        replaceable = self.shelf.replaceable(self.order) - {self.resumed_from}
        for version in itertools.count():
            path = self.store.path(names.versioned(name, version))
            overwrite = path in replaceable and self._is_mine(path)
            try:
                self.write(path, overwrite)
            except FileExistsError:
                continue
            return path
        raise AssertionError("unreachable: versions do not end")

    def _point(self) -> None:
        """Move ``last.ckpt`` and ``best.ckpt``; where there is no such file any more, a link to it goes."""
        if not self.options.save_last:
            return
        for role, target in ((names.LAST, self.shelf.last_path), (names.BEST, self.shelf.best.name or "")):
            try:
                if not target or self.store.exists(target):
                    self.store.point(role, target, self.run_id)
            except OSError as error:
                link = self.store.path(names.versioned(role, 0))
                self.messages.append(
                    f"cannot move {link} to {target}: {error}. The checkpoint itself is safe."
                    if target
                    else f"cannot remove {link}, which leads to no file any more: {error}. Delete it by hand."
                )

    def _delete(self, outdated: Iterable[str]) -> None:
        for path in sorted(self._mine(outdated)):
            try:
                self.store.remove(path)
            except OSError as error:
                self.messages.append(
                    f"cannot delete the outdated checkpoint {path}: {error}. It stays; delete it by hand."
                )

    def _mine(self, paths: Iterable[str]) -> set[str]:
        """Those that this run wrote here, and has not resumed from."""
        return {p for p in paths if p != self.resumed_from and self.store.contains(p) and self._is_mine(p)}

    def _is_mine(self, path: str) -> bool:
        """Whether this run wrote a file, and nobody has since written another of that name."""
        try:
            metadata = FileMetadata.from_dict(self.store.metadata(path), path)
        except (CheckpointFileError, OSError):  # or no metadata of ours
            return False
        descends = self.lineage.includes(metadata.lineage.attempt, metadata.batches)
        return descends and metadata.run_id == self.run_id and metadata.kind != Reason.MANUAL


def _enough(sizes: Mapping[str, int], wanted: int) -> list[str]:
    """The first of them that come to so many bytes together; none if all are too little."""
    taken, total = [], 0
    for path, size in sizes.items():
        taken.append(path)
        total += size
        if total >= wanted:
            return taken
    return []
