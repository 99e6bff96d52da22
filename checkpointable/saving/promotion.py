"""Copies the files of a run from its fast directory to the durable one, in the background, one at a time.

The best files, the last one and those that are kept for ever are always copied. Of all others, the newest is, every so
often. What was copied is kept there by the same rules as in the fast directory, and counted by itself.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from checkpointable._errors import SaveError
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import infos
from checkpointable.policy import names
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.policy.reasons import PERIODIC, Reason
from checkpointable.saving.kept_files import KeptFiles
from checkpointable.saving.save_task import SaveRequest, SaveResult, SaveTask, is_own
from checkpointable.storage import files
from checkpointable.storage.format import verify
from checkpointable.storage.local import store_at
from checkpointable.storage.store import Store
from checkpointable.storage.writer import Writer

_BLOCK = 1 << 23
_REPLACEABLE = PERIODIC | {Reason.EPOCH, Reason.NEWEST}


@dataclass(frozen=True)
class _Copy:
    """A file of the fast directory that is to be copied."""

    path: str
    request: SaveRequest

    @property
    def must(self) -> bool:
        """Whether it is copied in any case, and not only if it is the newest at its time."""
        return not self.request.reasons <= _REPLACEABLE

    @property
    def outlasts(self) -> bool:
        """Whether it is copied even if a better one has taken its place."""
        return not self.request.reasons <= _REPLACEABLE | {Reason.BEST}


class _Content:
    """The bytes of an open file, read when they are needed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def pieces(self) -> Iterator[memoryview]:
        self._file.seek(0)
        while block := self._file.read(_BLOCK):
            yield memoryview(block)

    def problem_in(self, file: BinaryIO) -> str | None:
        """Whether the copy is not intact."""
        return verify.problem_in(file)


class Promotion:
    """What rank 0 has copied, copies, and will copy.

    The training thread calls the methods. The background thread runs ``_copy_all``. Both hold the lock while they read
    or change what is waiting, in progress and done.
    """

    def __init__(
        self,
        fast: Store,
        options: Options,
        run_id: str,
        lineage: Lineage,
        position: Position,
        resumed_from: str | None,
    ) -> None:
        self.store = store_at(os.fspath(options.dirpath or ""))
        self._promoted: dict[tuple[str, Position], str] = {}
        self._fast, self._options, self._resumed_from = fast, options, resumed_from
        self._run_id, self._lineage, self._position = run_id, lineage, position
        self._kept: KeptFiles | None = None  # None until the directory has been looked at
        self._there = KeptFiles(retention=options.retention)  # in the fast directory
        self._must: list[_Copy] = []
        self._newest: _Copy | None = None
        self._current: _Copy | None = None
        self._begun_at = -float("inf")
        self._is_finishing = False
        self._messages: list[str] = []
        self._problem: str | None = None
        self._lock = threading.Lock()
        self._writer: Writer[None] = Writer()

    def open(self, *, may_fail: bool) -> list[CheckpointInfo]:
        """Try the directory, and return the checkpoints of this run that are there.

        Raises:
            SaveError: If it cannot be used. If it ``may_fail``, that is said, and each copy tries it again.
        """
        below = "/" in self._options.filename + self._options.best_filename
        try:
            self.store.prepare(below=below)
            return self._look()
        except OSError as error:
            if not may_fail:
                raise error if isinstance(error, SaveError) else SaveError(str(error)) from error
            self._messages.append(f"{error} The run goes on in {self._fast.directory}, and copies are tried again.")
            return []

    def held_from(self, request: SaveRequest) -> Callable[[], set[str]]:
        """What a save must not delete when it is asked: what is being copied, or will be in any case.

        The last save waits for the copies first: no later one would delete what is outdated.
        """
        return partial(self._pinned, waits=Reason.LAST in request.reasons)

    def _pinned(self, *, waits: bool) -> set[str]:
        if waits:
            self._writer.wait()
        with self._lock:
            return self._in_use()

    def _in_use(self) -> set[str]:
        return {copy.path for copy in (*self._must, self._current) if copy is not None}

    def _remove(self, path: str, request: SaveRequest) -> None:
        """Delete a file of the fast directory, if this run wrote what is there now."""
        with contextlib.suppress(OSError):  # the next save tries again
            if path != self._resumed_from and is_own(path, self._fast, request):
                self._fast.remove(path)

    def offer(self, result: SaveResult) -> None:
        """A file is in the fast directory: copy it now, later, or not at all."""
        if result.path is None:
            return
        copy = _Copy(result.path, result.request)
        with self._lock:
            self._there = result.kept
            listed = {(it.path, it.position) for it in result.kept.files}
            self._promoted = {key: path for key, path in self._promoted.items() if key in listed}
            self._must = [it for it in self._must if it.outlasts or it.path in result.kept.kept]
            if copy.must:
                self._must.append(copy)
            else:
                self._newest = copy
            free = result.kept.outdated - self._in_use()
        for path in free:  # since the save asked what it must not delete, its copy has ended or become needless
            self._remove(path, result.request)
        self._start()

    def take_messages(self) -> list[str]:
        """What the user should read."""
        with self._lock:
            messages, self._messages = self._messages, []
        return messages

    def finish(self) -> str | None:
        """Copy what must be copied, and the newest file, and wait for it; returns what is wrong if that fails."""
        self._writer.wait()
        with self._lock:
            self._problem, self._is_finishing = None, True
            if self._newest is not None:
                self._must.append(self._newest)
                self._newest = None
        self._start()
        self._writer.take()
        return self._problem if self._must else None

    def abandon(self) -> None:
        """Let the interpreter end in the middle of a copy."""
        self._writer.abandon()

    def placed(self, kept: KeptFiles) -> KeptFiles:
        """The same files, each at its durable path if it has one."""
        paths = {it: self._promoted.get((it.path, it.position), it.path) for it in kept.files}
        return replace(kept, files=tuple(replace(it, path=path) for it, path in paths.items()))

    def _start(self) -> None:
        if not self._writer.is_busy:
            self._writer.take()
            self._writer.start(self._copy_all, background=True)

    def _copy_all(self) -> None:
        """On the background thread: one copy after the other, until nothing is due or one fails."""
        while (copy := self._take()) is not None:
            result = self._copied(copy)
            has_failed = result is not None and result.path is None
            with self._lock:
                self._current = None
                outdated = copy.path in self._there.outdated and not (has_failed and copy.outlasts)
                if result is not None and result.path is not None:
                    self._messages += result.messages
                    self._kept = result.kept
                    self._promoted[copy.path, copy.request.position] = result.path
                elif result is not None:
                    self._note_failure(copy, result)
            if outdated:  # meanwhile, when it could not be deleted
                self._remove(copy.path, copy.request)
            if has_failed:
                return

    def _note_failure(self, copy: _Copy, result: SaveResult) -> None:
        """Say that a copy has failed, and keep it for the next time, unless it has become needless."""
        self._problem = f"{copy.path} could not be copied to {self.store.directory}: {result.problem}"
        self._messages += [*result.messages, f"{self._problem}. It stays where it is, and the next save tries again."]
        if copy.outlasts or self._is_finishing or (copy.must and copy.path in self._there.kept):
            self._must.insert(0, copy)
        elif not copy.must and self._newest is None and copy.path in self._there.kept:
            self._newest = copy

    def _take(self) -> _Copy | None:
        interval = self._options.upload_interval
        with self._lock:
            if self._must:
                self._current = self._must.pop(0)
            elif self._newest is not None and (
                interval is None or time.monotonic() - self._begun_at >= interval.total_seconds()
            ):
                self._current, self._newest, self._begun_at = self._newest, None, time.monotonic()
            return self._current

    def _copied(self, copy: _Copy) -> SaveResult | None:
        """Copy one file; ``None`` if it is gone or damaged, so that there is nothing to copy."""
        try:
            file = files.open_file(copy.path)
        except FileNotFoundError:
            if copy.must:
                self._say(f"{copy.path} is gone, so it is not copied to {self.store.directory}.")
            return None
        with file:
            wrong = verify.problem_in(file)
            if wrong is None:
                return self._task(copy, _Content(file))
            self._say(f"{copy.path} is damaged, so it is not copied to {self.store.directory}: {wrong}.")
            return None

    def _task(self, copy: _Copy, content: _Content) -> SaveResult:
        kept = self._kept
        if kept is None:
            try:
                self._look()
            except OSError as error:
                empty = KeptFiles(retention=self._options.retention)
                return SaveResult(request=copy.request, kept=empty, problem=str(error))
            kept = self._kept
            assert kept is not None
        versions = (names.versioned(copy.request.base_name, version) for version in itertools.count())
        version = next(number for number, name in enumerate(versions) if self._fast.path(name) == copy.path)
        return SaveTask(
            store=self.store,
            write=lambda path, *, overwrite: self.store.write(content, path, overwrite=overwrite),
            size=content.size,
            request=copy.request,
            first_version=version,
            kept=kept,
            options=self._options,
            resumed_from=self._resumed_from,
        ).run()

    def _say(self, message: str) -> None:
        with self._lock:
            self._messages.append(message)

    def _look(self) -> list[CheckpointInfo]:
        """Find the files of this run that are there: none of a new one, so that nothing is read for it."""
        if self._resumed_from is None and not self._position.batches:  # else a further fit of this run
            self._kept = KeptFiles(retention=self._options.retention)
            return []
        found = [info for info in infos(self.store.directory, below=True) if info.run_id == self._run_id]
        own = [info for info in found if info.belongs_to(self._lineage, self.store.directory)]
        self._kept = KeptFiles.found(self._options, own, self._position)
        return found
