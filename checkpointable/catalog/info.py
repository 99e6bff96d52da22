"""One checkpoint file: the metadata in it, which is checked when it is read, and the same as users see it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from checkpointable._errors import CheckpointFileError, RemoteError
from checkpointable.catalog import loading
from checkpointable.policy import names
from checkpointable.policy.as_builtin import as_builtin, from_builtin, misfits, required
from checkpointable.policy.lineage import UNKNOWN, Lineage
from checkpointable.policy.log_state import LogState
from checkpointable.policy.position import Ended, Position
from checkpointable.policy.verdict import Verdict
from checkpointable.storage.format import checkpoint
from checkpointable.storage.paths import join

FORMAT = 1
_OF_CONTENT = {errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENXIO}  # it is no file, or no archive
_NESTED = {"metrics", "reasons", "lineage", "verdicts", "confirmation"}
_LATEST = 253402300800.0  # the year 10000, in seconds since the epoch of Unix time

_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True, kw_only=True)
class Score:
    """The value of ``monitor`` on exactly these weights, in a file that was saved as one of the best."""

    monitor: str
    mode: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """How the batches that were trained again after a resume compare with their results before the kill.

    Attributes:
        batches: How many gave the same, bit for bit, before the first difference.
        first_difference: The number in the run of the first batch that did not; ``None`` if all gave the same.
    """

    batches: int
    first_difference: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What a file states and users see; ``CheckpointInfo`` says what each field means."""

    kind: str
    reasons: tuple[str, ...]
    epoch: int
    batch: int
    step: int
    batches: int
    metrics: Mapping[str, float]
    created: float
    run_id: str
    resumed_from: str | None
    exactness: str | None
    weights_only: bool
    lineage: Lineage
    base_name: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    confirmation: Confirmation | None = None
    weights: str | None = None
    frozen_checksum: str | None = None


@dataclass(frozen=True, kw_only=True)
class FileMetadata(_Facts):
    """What a checkpoint file states about itself."""

    created: float = field(default_factory=time.time)
    ended: Ended | None = None  # if it was saved at a safe point
    score: Score | None = None  # if it was saved as one of the best
    versions: Mapping[str, str] = field(default_factory=dict)  # of the packages that wrote it
    loggers: tuple[LogState, ...] = ()  # where its run was logged
    format: int = FORMAT  # of the metadata and of the state in the file

    def to_dict(self) -> dict[str, Any]:
        """The metadata as it is written to the file."""
        return as_builtin(self)

    @classmethod
    def from_dict(cls, metadata: Mapping[str, Any], path: str) -> FileMetadata:
        """The metadata that ``to_dict`` returned, as read from the file at ``path``.

        Raises:
            CheckpointFileError: If fields are missing or have values of a wrong type. The message names all of them.
        """
        missing = [repr(name) for name in required(_Facts) if name not in metadata]
        if missing:
            raise CheckpointFileError(f"{path} has metadata without {', '.join(missing)}.")
        wrong = misfits(cls, metadata)
        if not wrong and not 0 <= metadata["created"] < _LATEST:
            wrong = [f"created is {metadata['created']}"]
        if wrong:
            raise CheckpointFileError(f"{path} has metadata of a wrong type: {', '.join(wrong)}.")
        return from_builtin(cls, metadata)


@dataclass(frozen=True, kw_only=True, repr=False)
class CheckpointInfo(_Facts):
    """What a checkpoint file states about itself, read without its tensors.

    Attributes:
        path: Its path or URL.
        kind: ``"best"``, ``"epoch"``, ``"step"``, ``"time"``, ``"interval"``, ``"last"`` (end of training),
            ``"exception"``, ``"manual"`` (written by ``trainer.save_checkpoint`` or another callback), or ``"newest"``
            (to resume from, where the best one beside it holds weights only).
        reasons: All conditions that it was saved for; ``kind`` is the first of them.
        epoch: Epoch, from 0.
        batch: Batches done in that epoch.
        step: Optimizer steps done.
        batches: Batches done in all epochs together.
        metrics: Logged scalars that were measured at its position, and none that was carried over from an earlier one.
        monitor: The quantity that was compared, if it was saved as one of the best.
        mode: ``"min"`` or ``"max"``, if it was saved as one of the best.
        score: The value of ``monitor`` on exactly these weights.
        created: Seconds since the epoch of Unix time.
        size: Bytes.
        run_id: The run it belongs to, the same over all resumes.
        resumed_from: The file its run had resumed from, if any.
        exactness: How exactly a run resumes from it, in one line; ``None`` if unknown.
        weights_only: Whether it lacks what resuming needs.
        lineage: The attempt that wrote it, and those that this descends from.
        base_name: The name it was given, without version and suffix; ``None`` if the user or another callback named it.
        verdicts: How exactly each part of the run resumes from it, and why.
        confirmation: How the batches that its run had trained again by then compare with those before the kill;
            ``None`` if there was none to compare.
        frozen_checksum: SHA-256 of the frozen weights that were left out (``save_trainable_only``); ``None`` if none
            were.
        weights: Which copy its ``state_dict`` is: ``"current"``, the weights that are trained, or ``"averaged"``, those
            of Lightning's ``WeightAveraging`` or ``StochasticWeightAveraging``; ``None`` if it is not known, as other
            code had put weights there, or saved inside a validation of averaged weights.
    """

    path: str
    size: int
    metrics: dict[str, float] = field(hash=False)
    monitor: str | None
    mode: str | None
    score: float | None
    lineage: Lineage = UNKNOWN

    @property
    def generation(self) -> int:
        """How often its run had been resumed."""
        return self.lineage.generation

    @property
    def identity(self) -> tuple[object, ...]:
        """What two copies of one checkpoint have in common, and no other has."""
        return (self.run_id, self.lineage.attempt, self.batches, self.kind, self.created)

    def belongs_to(self, lineage: Lineage, directory: str) -> bool:
        """Whether an attempt of this lineage that saved in the directory wrote it, under the path that it has now."""
        if self.base_name is None or not names.is_version(self.path, join(directory, self.base_name)):
            return False
        return lineage.includes(self.lineage.attempt, self.batches)

    @property
    def at(self) -> Position:
        """The position of its run."""
        return Position(self.epoch, self.batch, self.step, self.batches)

    def verify(self) -> str | None:
        """What is wrong with the bytes of the file, or ``None``. Reads all of it."""
        return checkpoint.problem(self.path)

    def state_dict(self) -> dict[str, Any]:
        """The weights of the model by name, on the CPU, once all bytes are verified. No code from the file runs.

        The tensors of a local file lie in the file, and are read when they are used. Changing them changes no file. A
        remote file is read into memory, and shards are put together there. Frozen weights that were left out
        (``save_trainable_only``) are missing.

        Raises:
            CheckpointFileError: If the file is damaged.
            NotLoadedError: If one of the weights can only be loaded by running code from the file.
            OSError: If it cannot be read.
        """
        return loading.state_dict(self.path)

    def load(self, kind: loading.Loadable[_Loaded], **kwargs: Any) -> _Loaded:
        """The model, once all bytes are verified: ``LitNet.load_from_checkpoint(path, **kwargs)``, also of shards.

        Args:
            kind: The class of the module, or of the data module.
            kwargs: As for ``load_from_checkpoint``.

        Raises:
            CheckpointFileError: If the file is damaged.
            OSError: If it cannot be read.
        """
        return loading.load(self.path, kind, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """One flat dictionary of plain values, as a row of a data frame.

        Each logged value has a key of its own, ``metrics.<name>``. ``reasons`` is one string. Of the lineage there are
        ``attempt`` and ``generation``, of the confirmation ``confirmed_batches`` and ``first_difference``. Verdicts are
        left out: ``exactness`` tells the same in one line.
        """
        plain = {it.name: getattr(self, it.name) for it in fields(self) if it.name not in _NESTED}
        again = self.confirmation
        return {
            "path": plain.pop("path"),
            **plain,
            "reasons": ", ".join(self.reasons),
            "attempt": self.lineage.attempt,
            "generation": self.generation,
            "confirmed_batches": None if again is None else again.batches,
            "first_difference": None if again is None else again.first_difference,
            **{f"metrics.{name}": value for name, value in self.metrics.items()},
        }

    def __repr__(self) -> str:
        score = "" if self.score is None else f", {self.monitor}={self.score:.4g}"
        return f"CheckpointInfo({self.kind}, {self.at}{score}, {size_in_words(self.size)}, {self.path!r})"


def size_in_words(size_bytes: int) -> str:
    """``"208 kB"``: three digits, in units of 1,000."""
    size, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:  # from there on, three digits would be 1e+03
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}" if size < 999.5 else f"{size:,.0f} {units[0]}"


def read_info(path: str | os.PathLike[str], *, size: int | None = None) -> CheckpointInfo:
    """The description of one file. ``size`` is that of a remote one in bytes, if it is known.

    Raises:
        CheckpointFileError: If it is not a checkpoint of this library, or is damaged.
    """
    found, size = checkpoint.read_metadata(path, size=size)
    metadata = FileMetadata.from_dict(found, os.fspath(path))
    score = metadata.score
    return CheckpointInfo(
        path=os.fspath(path),
        size=size,
        monitor=None if score is None else score.monitor,
        mode=None if score is None else score.mode,
        score=None if score is None else score.value,
        **{it.name: getattr(metadata, it.name) for it in fields(_Facts)},
    )


def metadata_of(path: str | os.PathLike[str]) -> FileMetadata | None:
    """The metadata of a file; ``None`` if it is not ours, is damaged, or is gone.

    Raises:
        OSError: If it cannot be read now, which says nothing about the file.
    """
    try:
        return FileMetadata.from_dict(checkpoint.read_metadata(path)[0], os.fspath(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except CheckpointFileError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno not in _OF_CONTENT:
            raise error.__cause__ from error
        return None
    except OSError as error:
        if error.errno not in _OF_CONTENT or isinstance(error, RemoteError):
            raise
        return None
