"""The part of a save that can be done in the background: room, name, commit, links, and the end of what is outdated.

The order is always the same: the new file is durable, then the links move, then what no longer belongs is deleted.
Never deleted: the file resumed from, the newest file, and anything this run did not write.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from checkpointable._errors import CheckpointFileError, SaveError
from checkpointable._shelf import Order, Shelf
from checkpointable.policy import names
from checkpointable.policy.options import Options
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
        seconds: How long it took.
    """

    order: Order
    shelf: Shelf
    path: str | None = None
    problem: str | None = None
    messages: list[str] = field(default_factory=list)
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
        resumed_from: The file it has gone on from.
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
        """See that it fits. What would be deleted anyway may go first, if another file that verifies stays."""
        free = self.store.free_bytes()
        if self.size is None or free is None:
            return
        if not self.shelf.last_path:
            self._look_ahead(free, self.size)
        outdated = sorted(self._mine(self.shelf.replaceable(self.order)))
        while free < self.size and outdated:
            path = outdated.pop(0)
            others = self.shelf.kept - {path}
            if not any(self.store.problem(other) is None for other in sorted(others)):
                break
            self.shelf = self.shelf.without([path])
            self._point()
            self._delete([path])
            free = self.store.free_bytes() or 0
        if free < self.size:
            raise SaveError(
                f"no room in {self.store.directory}: a checkpoint takes {self.size:,} bytes, {free:,} are free,"
                f" {self.size - free:,} are missing"
            )

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
        stem = self._stem()
        replaceable = self.shelf.replaceable(self.order) - {self.resumed_from}
        for version in itertools.count():
            path = self.store.path(names.versioned(stem, version))
            overwrite = path in replaceable and self._is_mine(path)
            try:
                self.write(path, overwrite)
            except FileExistsError:
                continue
            return path
        raise AssertionError("unreachable: versions do not end")

    def _stem(self) -> str:
        options, order = self.options, self.order
        template = options.filename if order.score is None else options.best_filename
        values: dict[str, int | float | str] = {**order.metrics, **order.position.to_dict()}
        values["monitor"] = options.monitor or ""
        return names.render(template, values, insert_names=options.auto_insert_metric_name)

    def _point(self) -> None:
        """Move ``last.ckpt`` and ``best.ckpt``."""
        if not self.options.save_last:
            return
        for role, target in ((names.LAST, self.shelf.last_path), (names.BEST, self.shelf.best.name)):
            if target and self.store.exists(target):
                try:
                    self.store.point(role, target, self.run_id)
                except OSError as error:
                    self.messages.append(
                        f"cannot move {self.store.path(names.versioned(role, 0))} to {target}: {error}."
                        " The checkpoint itself is safe."
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
            metadata = self.store.metadata(path)
        except (CheckpointFileError, OSError):
            return False
        return metadata.get("run_id") == self.run_id and metadata.get("kind") != "manual"
