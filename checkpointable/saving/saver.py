"""How one run saves: the state is captured in the training thread, and becomes a file in the background.

Only rank 0 touches the disk; every rank captures, and every rank learns the outcome when all of them ask for it. One
save is under way at a time, and its snapshot is the only copy of the state.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Set
from functools import partial
from typing import Any

from lightning.pytorch import Trainer

from checkpointable._errors import CheckpointableWarning, SaveError
from checkpointable.catalog.info import CheckpointInfo, infos
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.checkpoint_io import KEY, DurableCheckpointIO
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.resume.plain import refused
from checkpointable.saving.kept_files import Order, Shelf
from checkpointable.saving.overlap import steady_tensors
from checkpointable.saving.save_task import Job, Outcome
from checkpointable.storage.paths import parent
from checkpointable.storage.staging.buffer import Arena
from checkpointable.storage.staging.snapshot import Snapshot
from checkpointable.storage.store import Store
from checkpointable.storage.stores import store_at
from checkpointable.storage.writer import Writer

_SOON = 0.5  # seconds; an interval that is asked for is kept where a save is quicker than this
_CAN_OVERLAP = {"interval", "step", "time"}
_CHANGED = (
    "the parameters were changed between two optimizer steps while they were being copied: that copy is dropped, the"
    " next safe point is saved, and from now on training waits for each copy"
)


class Saver:
    """Saves, keeps and deletes the files of one run.

    Attributes:
        shelf: What is durable and kept.
        resumed_from: The file this run has gone on from.
        visible: The same on rank 0, a moment earlier: what is named there is on disk.
        blocked_seconds: How long training has waited for the last save so far.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.store: Store | None = None
        self.run_id = ""
        self.lineage = Lineage.begin()
        self.resumed_from: str | None = None
        self.shelf = self.visible = Shelf.empty(options)
        self.blocked_seconds = 0.0
        self._writer: Writer[Outcome] = Writer()
        self._arena = Arena()
        self._pending: Order | None = None
        self._is_known_slow = False
        self._asked = 0
        self._snapshot: Snapshot | None = None
        self._overlaps: bool | None = None  # not known before the first save has been watched
        self._named: set[str] = set()

    def start(self, trainer: Trainer, run_id: str, lineage: Lineage, position: Position) -> int:
        """Find and try the directory, and take up what this run has saved there on its way to here.

        Returns:
            How many of its resumes have left files there, on whatever branch.

        Raises:
            SaveError: If the directory cannot be used.
        """
        resumed_from = internals.resume_path(trainer)
        self.run_id, self.lineage = run_id, lineage
        self.store, self.resumed_from, found = self._on_rank_zero(trainer, lambda: self._look(trainer, resumed_from))
        if resumed_from is not None:
            mine = [info for info in found if info.run_id == run_id and info.belongs_to(lineage)]
            self.shelf = self.visible = Shelf.found(self.options, mine, position)
        return max((info.generation + 1 for info in found if info.run_id == run_id), default=0)

    def save(self, trainer: Trainer, order: Order) -> None:
        """Capture this moment and begin to save it. Collective: every rank calls it; nothing may be under way.

        Raises:
            SaveError: If it cannot be captured.
        """
        begun = time.monotonic()
        checkpoint = internals.dump(trainer, weights_only=self.options.save_weights_only)
        self._pending, self._asked = order, 0
        self._is_known_slow = False
        try:
            self._on_rank_zero(trainer, lambda: self._begin(trainer, checkpoint, order))
        except Exception:
            self._pending = self._snapshot = None
            raise
        self.blocked_seconds = time.monotonic() - begun

    def settle(self, trainer: Trainer, *, wait: bool) -> Outcome | None:
        """What came of the save that was under way; ``None`` if there was none, or it still is.

        Collective where there are several ranks.
        """
        if self._pending is None or not (wait or self._is_done(trainer)):
            return None
        try:
            outcome: Outcome | None = self._on_rank_zero(trainer, self._writer.take)
        except Exception:
            self._pending = self._snapshot = None
            raise
        self._pending = self._snapshot = None
        if outcome is None:  # it is the parent process that writes
            return None
        self.shelf = self.visible = outcome.shelf
        for message in outcome.messages:
            _warn(message)
        return outcome

    def is_busy(self, trainer: Trainer) -> bool:
        """Whether a save is under way that will not be done in a moment. Collective."""
        busy = False
        if trainer.is_global_zero and self._pending is not None:
            if not self._is_known_slow and (self._writer.last_seconds < _SOON or self._writer.last_seconds == math.inf):
                begun = time.monotonic()
                self._writer.wait(_SOON)
                self.blocked_seconds += time.monotonic() - begun
                self._is_known_slow = True  # once: not again after every batch of a long save
            busy = self._writer.is_busy
        return bool(trainer.strategy.broadcast(busy))

    def wait_for_copy(self) -> None:
        """Before anything changes parameters: wait until they are in the snapshot."""
        snapshot = self._snapshot
        if snapshot is not None and not snapshot.is_filled and self._writer.is_busy:
            begun = time.monotonic()
            snapshot.wait()
            self.blocked_seconds += time.monotonic() - begun

    def before_change(self) -> None:
        """Before a step, or at the end of a batch: as ``wait_for_copy``, and whether only steps change parameters."""
        if self._snapshot is not None and self._overlaps is None:
            begun = time.monotonic()
            changed = self._snapshot.has_changed()
            self._overlaps = None if changed is None else not changed
            self.blocked_seconds += time.monotonic() - begun
        self.wait_for_copy()

    def close(self) -> None:
        """Give the memory of the snapshots back."""
        if self._pending is None:
            self._arena.release()

    def has(self, trainer: Trainer, position: Position, due: Set[str]) -> bool:
        """Whether this moment is saved already, in a file that is still there. Collective."""
        return self.shelf.has(position, due) and bool(self._on_rank_zero(trainer, self._newest_is_there))

    def _newest_is_there(self) -> bool:
        try:
            return self.store is not None and self.store.exists(self.shelf.last_path)
        except OSError:
            return True  # nobody can look now; it was verified when it was written

    def admits(self, score: float) -> bool:
        """Whether weights of this score are one of the best, counting those whose save is under way."""
        best, pending = self.shelf.best, self._pending
        if pending is not None and pending.score is not None:
            best = best.add("\0under way", pending.score)
        return best.admits(score)

    @property
    def busy_seconds(self) -> float:
        """How long the last save took, with the copy of the state."""
        return self._writer.last_seconds

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, and nothing waits to be settled."""
        return self._pending is None

    def _is_done(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return not self._writer.is_busy
        self._asked += 1
        if self._asked & (self._asked - 1):
            return False  # ranks agree at the first, second, fourth, eighth ... time, so that it costs next to nothing
        return bool(trainer.strategy.broadcast(not self._writer.is_busy))

    def _look(self, trainer: Trainer, resumed_from: str | None) -> tuple[Store, str | None, list[CheckpointInfo]]:
        if self.options.dirpath is not None:
            directory = os.fspath(self.options.dirpath)
        elif resumed_from is not None:
            directory = parent(resumed_from)
        else:
            directory = internals.checkpoint_directory(trainer)
        store = store_at(directory)
        below = "/" in self.options.filename + self.options.best_filename
        store.prepare(below=below)
        if resumed_from is None:
            return store, None, []
        places = {store.directory, parent(resumed_from)}
        return store, resumed_from, [info for place in places for info in infos(place, below=below)]

    def _begin(self, trainer: Trainer, checkpoint: dict[str, Any], order: Order) -> None:
        self._name_what_is_refused(checkpoint)
        write, size, background = self._way(trainer, checkpoint, order)
        assert self.store is not None
        job = Job(
            store=self.store,
            write=write,
            size=size,
            order=order,
            shelf=self.shelf,
            options=self.options,
            run_id=self.run_id,
            lineage=self.lineage,
            resumed_from=self.resumed_from,
            show=self._show,
        )
        self._writer.start(partial(self._fill_and_do, self._snapshot, job), background=background)

    def _show(self, shelf: Shelf) -> None:
        self.visible = shelf

    def _way(
        self, trainer: Trainer, checkpoint: dict[str, Any], order: Order
    ) -> tuple[Callable[[str, bool], None], int | None, bool]:
        """How it is written, how many bytes that are, and whether in the background."""
        assert self.store is not None
        if not isinstance(internals.own_checkpoint_io(trainer), DurableCheckpointIO):
            return partial(_through_users_io, trainer, checkpoint), None, False
        metadata = checkpoint.get(KEY, {}).get("metadata")
        background = self.options.async_save
        try:
            watched = self._overlaps is None
            overlaps = watched or (self._overlaps and order.reasons <= _CAN_OVERLAP)
            steady = steady_tensors(trainer) if overlaps and background else ()
            snapshot = Snapshot(checkpoint, metadata, self._arena if background else None, steady, watched=watched)
        except MemoryError as error:
            _warn(f"{error}, so training waits for this save. Set async_save=False, or leave more memory free.")
            snapshot, background = Snapshot(checkpoint, metadata), False
        self._snapshot = snapshot
        store = self.store
        return lambda path, overwrite: store.write(snapshot, path, overwrite=overwrite), snapshot.size, background

    def _fill_and_do(self, snapshot: Snapshot | None, job: Job) -> Outcome:
        if snapshot is None or snapshot.fill():
            return job()
        self._overlaps = False
        return Outcome(order=job.order, shelf=job.shelf, messages=[_CHANGED], again=True)

    def _name_what_is_refused(self, checkpoint: dict[str, Any]) -> None:
        found = {at: kind for at, kind in refused(checkpoint) if at not in self._named}
        self._named.update(found)
        for at, kind in found.items():
            _warn(
                f"checkpoint{at} is a {kind}, which torch.load(weights_only=True) refuses, and so does Trainer.fit("
                "ckpt_path=...) by itself. Save a plain value there, or resume with Trainer.fit(weights_only=False)."
            )

    def _on_rank_zero(self, trainer: Trainer, work: Callable[[], Any]) -> Any:
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

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: what is under way is this one's alone."""
        return {**self.__dict__, "_pending": None, "_snapshot": None}


def _through_users_io(trainer: Trainer, checkpoint: dict[str, Any], path: str, overwrite: bool) -> None:
    """Through the ``CheckpointIO`` that the user chose."""
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(path)
    trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, path)


def _warn(message: str) -> None:
    warnings.warn(message, CheckpointableWarning, stacklevel=2)
