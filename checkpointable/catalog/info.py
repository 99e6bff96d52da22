"""One checkpoint file: the metadata in it, which is checked when it is read, and the same as users see it."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from checkpointable._errors import CheckpointFileError
from checkpointable.policy.as_builtin import as_builtin, from_builtin
from checkpointable.policy.lineage import UNKNOWN, Lineage
from checkpointable.policy.names import SUFFIX
from checkpointable.policy.position import Ended, Position
from checkpointable.storage.files import open_file
from checkpointable.storage.format import archive

FORMAT = 1
_Check = Callable[[Any], bool]


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of a file that was saved as one of the best.

    Attributes:
        monitor: The quantity that was compared.
        mode: ``"min"`` or ``"max"``.
        value: The value of that quantity on exactly these weights.
    """

    monitor: str
    mode: str
    value: float


@dataclass(frozen=True, kw_only=True)
class FileMetadata:
    """What a checkpoint file states about itself.

    Attributes:
        kind: The first of its reasons.
        reasons: Every condition that it was saved for.
        run_id: The run it belongs to, the same over all resumes.
        lineage: The attempt that wrote it, and those that this descends from.
        epoch: Epoch, from 0.
        batch: Batches done in that epoch.
        step: Optimizer steps done.
        batches: Batches done in all epochs together.
        ended: What had just ended; ``None`` if it was not saved at a safe point.
        metrics: Logged scalars when it was saved.
        score: Its score, if it was saved as one of the best.
        base_name: The name it was given, without version and suffix; ``None`` if the user or another callback named it.
        resumed_from: The file its run had resumed from, if any.
        exactness: How exactly a run resumes from it; ``None`` if unknown.
        weights_only: Whether it lacks what resuming needs.
        created: Seconds since the epoch of Unix time.
        versions: Of the packages that wrote it.
        format: Of the metadata and of the state in the file.
    """

    kind: str
    reasons: tuple[str, ...]
    run_id: str
    lineage: Lineage
    epoch: int
    batch: int
    step: int
    batches: int
    metrics: Mapping[str, float]
    resumed_from: str | None
    exactness: str | None
    weights_only: bool
    ended: Ended | None = None
    score: Score | None = None
    base_name: str | None = None
    created: float = field(default_factory=time.time)
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def position(self) -> Position:
        """Where its run stood."""
        return Position(self.epoch, self.batch, self.step, self.batches)

    def to_dict(self) -> dict[str, Any]:
        """The metadata as it is written to the file."""
        return as_builtin(self)

    @classmethod
    def from_dict(cls, metadata: Mapping[str, Any], path: str) -> FileMetadata:
        """The metadata that ``to_dict`` returned, as read from the file at ``path``.

        Raises:
            CheckpointFileError: If fields are missing or have values of a wrong type. The message names all of them.
        """
        wrong = _wrong_fields(metadata)
        if wrong is not None:
            raise CheckpointFileError(f"{path} {wrong}.")
        return from_builtin(cls, metadata)


def _wrong_fields(metadata: Mapping[str, Any]) -> str | None:
    """Which fields are missing or have values of a wrong type; ``None`` if the metadata is valid."""
    missing = [repr(name) for name in _REQUIRED if name not in metadata]
    if missing:
        return f"has metadata without {', '.join(missing)}"
    score = metadata.get("score")
    parts = score if isinstance(score, dict) else {}
    checked = [
        *((name, metadata[name], check) for name, check in _REQUIRED.items()),
        *((name, metadata[name], check) for name, check in _OPTIONAL.items() if name in metadata),
        *((f"score.{name}", parts.get(name), check) for name, check in _SCORE.items() if score is not None),
    ]
    wrong = [f"{name} is {value!r:.60}" for name, value, is_fine in checked if not is_fine(value)]
    return f"has metadata of a wrong type: {', '.join(wrong)}" if wrong else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text_or_none(value: Any) -> bool:
    return value is None or _is_text(value)


def _is_lineage(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_text(value.get("attempt")) or not _is_count(value.get("generation")):
        return False
    ancestors = value.get("ancestors")
    return isinstance(ancestors, list) and all(
        isinstance(it, dict) and _is_text(it.get("attempt")) and _is_count(it.get("batches")) for it in ancestors
    )


_REQUIRED: dict[str, _Check] = {
    "kind": _is_text,
    "reasons": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    **dict.fromkeys(("epoch", "batch", "step", "batches"), _is_count),
    "metrics": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    "created": lambda value: _is_number(value) and math.isfinite(value),
    "run_id": _is_text,
    "lineage": _is_lineage,
    "resumed_from": _is_text_or_none,
    "exactness": _is_text_or_none,
    "weights_only": lambda value: isinstance(value, bool),
}
_OPTIONAL: dict[str, _Check] = {
    "base_name": _is_text_or_none,
    "ended": lambda value: value is None or value in tuple(Ended),
    "versions": lambda value: isinstance(value, dict),
}
_SCORE: dict[str, _Check] = {"monitor": _is_text, "mode": _is_text, "value": _is_number}


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
