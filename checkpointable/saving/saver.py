"""Saves a fit: the state is captured on the training thread and becomes a file on a background thread.

Only rank 0 touches the disk. Every rank captures, and all ranks learn the result when they collect it together. One
save is in progress at a time, and its copy of the state is the only one.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from checkpointable._errors import CheckpointableWarning, SaveError
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.policy.reasons import Reason
from checkpointable.saving import deadline, directory, garbage_collector
from checkpointable.saving.kept_files import KeptFiles
from checkpointable.saving.loadable import unsafe_types_not_named
from checkpointable.saving.on_rank_zero import on_rank_zero
from checkpointable.saving.promotion import Promotion
from checkpointable.saving.save_task import SaveRequest, SaveResult, SaveTask
from checkpointable.saving.shards import Shards, StagedShards
from checkpointable.saving.staged import expected_bytes, staged
from checkpointable.storage.staging.buffer import StagingBuffer
from checkpointable.storage.staging.snapshot import Snapshot
from checkpointable.storage.store import Store
from checkpointable.storage.writer import Writer

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_SOON_SECONDS = 0.5  # a quicker save is waited for, so that the next one is not late
_DYING_SECONDS = 60.0  # for which a process that is to be killed may still write
_CHANGED = (
    "the parameters were changed between two optimizer steps while they were being copied: that copy is dropped, the"
    " next safe point is saved, and from now on training waits for each copy"
)


class Saver:
    """Saves, keeps and deletes the files of one fit.

    Only the training thread calls its methods. The background thread sets ``_on_disk`` and ``durable_at``, and
    ``_only_steps_change`` when it finds a torn copy; it sets nothing else.

    Attributes:
        kept: The files that the run keeps, the same on all ranks.
        in_progress: The save that is in progress, or whose result is not collected yet; ``None`` if there is none.
        outrun: The file resumed from, once its position has got a validation that the file had not seen; or ``None``.
        blocked_seconds: How long training has waited for the last save so far.
        durable_at: When the newest file became durable, by ``time.monotonic``; ``None`` before the first.
        size_bytes: Of that save's file, on rank 0; ``None`` if it is not known.
        is_prepared: Whether ``prepare`` was called.
    """

    def __init__(self, options: Options) -> None:
        self.store: Store | None = None
        self.resumed_from: str | None = None
        self.outrun: str | None = None
        self.kept = self._on_disk = KeptFiles(retention=options.retention)
        self.blocked_seconds = 0.0
        self.durable_at: float | None = None
        self.size_bytes: int | None = None
        self._writer: Writer[SaveResult | None] = Writer()
        self._buffer = StagingBuffer()
        self._shards = Shards()
        self._promotion: Promotion | None = None  # on rank 0, with a fast_dirpath
        self.in_progress: SaveRequest | None = None
        self._snapshot: Snapshot | None = None
        self._only_steps_change: bool | None = None  # None until the first save has been watched
        self.is_prepared = self._is_known_slow = False
        self._questions = 0
        self._seconds: dict[bool, float] = {}  # that the last save took, of files with weights only and of others
        self._named: set[str] = set()

    def open(self, trainer: Trainer, options: Options, run_id: str, lineage: Lineage, position: Position) -> int:
        """Find and try the directory, and the run's files there up to ``position``; return its next free generation."""

        def look() -> directory.Place:
            place = directory.look(trainer, options, internals.resume_path(trainer))
            self._promotion = directory.promotion_to(options, place, run_id, lineage, position)
            return place

        place = on_rank_zero(trainer, look)
        self.store, self.resumed_from, found = place.store, place.resumed_from, place.found
        self._shards.open(trainer, self.store)
        if self.resumed_from is not None:
            self.kept = self._on_disk = KeptFiles.found(options, place.own(options, run_id, lineage), position)
        return max((info.generation + 1 for info in found if info.run_id == run_id), default=0)

    @garbage_collector.paused()
    def save(self, trainer: Trainer, request: SaveRequest, options: Options) -> None:
        """Capture the state and begin to save it, while no other save is in progress. Collective."""
        began = time.monotonic()
        self._shards.require_loadable(trainer, request)
        checkpoint = internals.dump(trainer, weights_only=request.weights_only)
        shards = self._shards.stage(trainer, checkpoint)
        self.in_progress, self._questions, self._is_known_slow = request, 0, False
        try:
            on_rank_zero(trainer, lambda: self._start(trainer, checkpoint, request, options, shards))
        except Exception:
            self.in_progress = self._snapshot = None
            raise
        if shards is not None and not trainer.is_global_zero:
            self._writer.start(shards.follow, background=True)
        self.blocked_seconds = time.monotonic() - began

    def collect(self, trainer: Trainer, *, wait: bool) -> SaveResult | None:
        """The result of the save that was in progress; ``None`` if there was none, or it still is. Collective."""
        if self.in_progress is None or not (wait or self._is_done(trainer)):
            return None
        try:
            result: SaveResult | None = on_rank_zero(trainer, self._writer.take)
            if not trainer.is_global_zero:  # rank 0 tells if shards were not written
                with contextlib.suppress(SaveError, RuntimeError):
                    self._writer.take()
        except Exception:  # but not Ctrl-C, after which the save is still in progress
            self.in_progress = self._snapshot = None
            raise
        self.in_progress = self._snapshot = None
        if result is None:  # a forked process: its parent writes
            return None
        self.kept = self._on_disk = result.kept
        if self._promotion is not None:
            self._promotion.offer(result)
            result.messages.extend(self._promotion.take_messages())
        if result.path is not None:
            self._seconds[result.request.weights_only] = self._writer.last_seconds
        for message in result.messages:
            _warn(message)
        return result

    def is_busy(self, trainer: Trainer) -> bool:
        """Whether a save is in progress that takes longer than half a second. Collective."""
        busy = False
        if trainer.is_global_zero and self.in_progress is not None:
            if not self._is_known_slow and not _SOON_SECONDS <= self._writer.last_seconds < math.inf:
                began = time.monotonic()
                self._writer.wait(_SOON_SECONDS)
                self.blocked_seconds += time.monotonic() - began
                self._is_known_slow = True  # once, not after every batch of a long save
            busy = self._writer.is_busy
        return bool(trainer.strategy.broadcast(busy))

    def finish(self) -> str | None:
        """On rank 0: wait until the durable directory has its copies; returns what is wrong if one is missing."""
        problem = None if self._promotion is None else self._promotion.finish()
        for message in () if self._promotion is None else self._promotion.take_messages():
            _warn(message)
        return problem

    @property
    def kept_on_disk(self) -> KeptFiles:
        """``kept`` as rank 0 knows it, at the durable paths: it moves as soon as a file is on disk."""
        return self._on_disk if self._promotion is None else self._promotion.placed(self._on_disk)

    @property
    def directory(self) -> str:
        """Where the files lie; known once it is open."""
        assert self.store is not None
        return self.store.directory

    @property
    def is_writing(self) -> bool:
        """Whether the background thread works on a save."""
        return self._writer.is_busy

    @property
    def busy_seconds(self) -> float:
        """How long the last save took, including the copy of the state."""
        return self._writer.last_seconds

    def wait_for_staging(self) -> None:
        """Before anything may change parameters: wait until they are copied."""
        snapshot = self._snapshot
        if snapshot is not None and not snapshot.is_filled and self._writer.is_busy:
            began = time.monotonic()
            snapshot.wait_for_staging()
            self.blocked_seconds += time.monotonic() - began

    def wait_for_file(self) -> None:
        """Wait until a save that is in progress is on disk, on any thread."""
        self._writer.wait(_DYING_SECONDS)

    def abandon(self) -> None:
        """Wait for no save any more."""
        self._writer.abandon()
        if self._promotion is not None:
            self._promotion.abandon()

    def prepare(self, trainer: Trainer, options: Options) -> None:
        """Once the optimizers have their state: get the memory for copies, before the first save needs it."""
        self.is_prepared = self.in_progress is None  # else a save may be reading the memory: after the next batch
        if self.is_prepared and options.async_save and self.store is not None and trainer.is_global_zero:
            device = trainer.strategy.root_device
            self._buffer.prepare(expected_bytes(trainer, options), device if device.type == "cuda" else None)

    def before_step(self) -> None:
        """Before a step, or at the end of a batch: check that only steps change parameters, and wait for the copy."""
        if self._snapshot is not None and self._only_steps_change is None:
            began = time.monotonic()
            changed = self._snapshot.has_changed()
            self._only_steps_change = None if changed is None else not changed
            self.blocked_seconds += time.monotonic() - began
        self.wait_for_staging()

    def has(self, trainer: Trainer, request: SaveRequest) -> bool:
        """Whether the position is saved already, in a file that still exists. Collective."""
        path = self.kept.path_at(request.position, request.reasons, weights_only=request.weights_only)
        return path not in (None, self.outrun) and bool(on_rank_zero(trainer, lambda: self._exists(path)))

    def admits(self, score: float) -> bool:
        """Whether weights with this score are among the best, also beside those of a save in progress."""
        return self.kept.admits(score, in_progress=None if self.in_progress is None else self.in_progress.score)

    def close(self) -> None:
        """Free the memory of the copies."""
        if self.in_progress is None:
            self._buffer.release()
            self._shards.close()

    def _exists(self, path: str) -> bool:
        try:
            return self.store is not None and self.store.exists(path)
        except OSError:
            return True  # the file system does not answer, but the file was verified when it was written

    def _is_done(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return not self._writer.is_busy
        self._questions += 1
        if self._questions & (self._questions - 1):
            return False  # ranks agree only at the first, second, fourth, eighth ... call, so that it costs little
        return bool(trainer.strategy.broadcast(not self._writer.is_busy))

    def _start(
        self,
        trainer: Trainer,
        checkpoint: dict[str, Any],
        request: SaveRequest,
        options: Options,
        shards: StagedShards | None,
    ) -> None:
        """On rank 0: copy what training may change next, and leave the rest to the background thread."""
        if Reason.LAST not in request.reasons:  # which no later save would make up for
            deadline.check(trainer, options, self._seconds.get(request.weights_only, math.inf))
        for message in unsafe_types_not_named(checkpoint, self._named):
            _warn(message)
        store, watched = self.store, self._only_steps_change
        assert store is not None
        content = staged(trainer, checkpoint, request, options, store, self._buffer, shards, only_steps_change=watched)
        snapshot = self._snapshot = content.snapshot
        self.size_bytes = content.size
        task = SaveTask(
            store=store,
            write=content.write,
            size=content.size,
            request=request,
            kept=self.kept,
            options=options,
            resumed_from=self.resumed_from,
            on_durable=self._note_durable,
            held=set if self._promotion is None else self._promotion.held_from(request),
        )
        work = partial(self._fill_and_run, snapshot, task, shards)
        self._writer.start(work, background=snapshot is not None and snapshot.is_copy)

    def _fill_and_run(self, snapshot: Snapshot | None, task: SaveTask, shards: StagedShards | None) -> SaveResult:
        """On the background thread: complete the copy, then make the file."""
        if snapshot is None or snapshot.fill():
            try:
                return task.run()
            finally:
                if shards is not None:
                    shards.abandon()
        self._only_steps_change = False
        return SaveResult(request=task.request, kept=task.kept, messages=[_CHANGED], retry=True)

    def _note_durable(self, kept: KeptFiles) -> None:
        if kept.last_path != self._on_disk.last_path:
            self.durable_at = time.monotonic()
        self._on_disk = kept

    def __getstate__(self) -> dict[str, Any]:  # copies and pickles do not share a save in progress
        return {**self.__dict__, "in_progress": None, "_snapshot": None, "_promotion": None}


def _warn(message: str) -> None:
    warnings.warn(message, CheckpointableWarning, stacklevel=2)
