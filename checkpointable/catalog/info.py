"""One checkpoint file, as its own metadata describes it."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from checkpointable.catalog.metadata import FileMetadata
from checkpointable.policy.lineage import UNKNOWN, Lineage
from checkpointable.policy.names import SUFFIX
from checkpointable.policy.position import Position
from checkpointable.storage.files import open_file
from checkpointable.storage.format import archive


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a checkpoint file states about itself, read without its tensors.

    Attributes:
        path: Its path or URL.
        kind: ``"best"``, ``"epoch"``, ``"step"``, ``"time"``, ``"interval"``, ``"last"`` (end of training),
            ``"exception"`` or ``"manual"`` (written by ``trainer.save_checkpoint`` or another callback).
        reasons: All conditions that it was saved for; ``kind`` is the first of them.
        epoch: Epoch, from 0.
        batch: Batches done in that epoch.
        step: Optimizer steps done.
        batches: Batches done in all epochs together.
        metrics: Logged scalars when it was saved.
        monitor: The quantity that was compared, if it was saved as one of the best.
        mode: ``"min"`` or ``"max"``, if it was saved as one of the best.
        score: The value of ``monitor`` on exactly these weights.
        created: Seconds since the epoch of Unix time.
        size: Bytes.
        run_id: The run it belongs to, the same over all resumes.
        resumed_from: The file its run had resumed from, if any.
        exactness: How exactly a run resumes from it; ``None`` if unknown.
        weights_only: Whether it lacks what resuming needs.
        lineage: The attempt that wrote it, and those that this descends from.
        base_name: The name it was given, without version and suffix; ``None`` if the user or another callback named it.
    """

    path: str
    kind: str
    reasons: tuple[str, ...]
    epoch: int
    batch: int
    step: int
    batches: int
    metrics: dict[str, float]
    monitor: str | None
    mode: str | None
    score: float | None
    created: float
    size: int
    run_id: str
    resumed_from: str | None
    exactness: str | None
    weights_only: bool
    lineage: Lineage = UNKNOWN
    base_name: str | None = None

    @property
    def generation(self) -> int:
        """How often its run had been resumed."""
        return self.lineage.generation

    def belongs_to(self, lineage: Lineage) -> bool:
        """Whether an attempt of this lineage wrote it, under the name that the file has now."""
        given = re.escape(self.base_name or "")
        named = re.search(rf"(^|/){given}(-v\d+)?{re.escape(SUFFIX)}$", self.path.replace(os.sep, "/")) is not None
        return self.base_name is not None and named and lineage.includes(self.lineage.attempt, self.batches)

    @property
    def at(self) -> Position:
        """The position of its run."""
        return Position(self.epoch, self.batch, self.step, self.batches)

    def to_dict(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return asdict(self)


_COPIED = {it.name for it in fields(CheckpointInfo)} & {it.name for it in fields(FileMetadata)} - {"score"}


def read_info(path: str | os.PathLike[str]) -> CheckpointInfo:
    """The description of one file.

    Raises:
        CheckpointFileError: If it is not a checkpoint of this library, or is damaged.
        OSError: If it cannot be opened.
        RemoteError: If its file system does not answer.
    """
    with open_file(path) as file:
        metadata = FileMetadata.from_dict(archive.read_metadata_in(file, os.fspath(path)), os.fspath(path))
        size = file.seek(0, os.SEEK_END)
    score = metadata.score
    return CheckpointInfo(
        path=os.fspath(path),
        size=size,
        monitor=None if score is None else score.monitor,
        mode=None if score is None else score.mode,
        score=None if score is None else score.value,
        **{name: getattr(metadata, name) for name in _COPIED},
    )
