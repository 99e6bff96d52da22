"""One checkpoint file, as its own metadata describes it."""

from __future__ import annotations

import itertools
import math
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from checkpointable._errors import CheckpointFileError, RemoteError
from checkpointable.catalog.metadata import FileMetadata
from checkpointable.policy.lineage import UNKNOWN, Lineage
from checkpointable.policy.names import SUFFIX, is_reserved
from checkpointable.policy.position import Position
from checkpointable.storage.files import for_each, listed, modified, open_file
from checkpointable.storage.format import archive
from checkpointable.storage.paths import is_remote, parent


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a checkpoint file tells about itself, without a tensor being read.

    Attributes:
        path: Where it lies.
        kind: ``"best"``, ``"epoch"``, ``"step"``, ``"time"``, ``"interval"``, ``"last"`` (end of training),
            ``"exception"`` or ``"manual"`` (written by ``trainer.save_checkpoint`` or another callback).
        reasons: Every condition that it was saved for; ``kind`` is the first of them.
        epoch: Epoch, from 0.
        batch: Batches done in that epoch.
        step: Optimizer steps done.
        batches: Batches done in all epochs together.
        metrics: Logged scalars when it was saved.
        monitor: The quantity it was judged by, if it was saved for being one of the best.
        mode: ``"min"`` or ``"max"``, likewise.
        score: The value of that quantity on exactly these weights.
        created: Seconds since the epoch of Unix time.
        size: Bytes.
        run_id: The run it belongs to, the same over all restarts.
        resumed_from: The file its run had gone on from, if any.
        exactness: How exactly a run goes on from it; ``None`` where that was not recorded.
        weights_only: Whether it lacks what resuming needs.
        lineage: The attempt that wrote it, and those that this descends from.
        base_name: The name it was given, without version and suffix; ``None`` if it was saved by name.
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
        """Whether an attempt of this lineage wrote it, and it is no copy under another name."""
        given = re.escape(self.base_name or "")
        named = re.search(rf"(^|/){given}(-v\d+)?{re.escape(SUFFIX)}$", self.path.replace(os.sep, "/")) is not None
        return self.base_name is not None and named and lineage.includes(self.lineage.attempt, self.batches)

    @property
    def at(self) -> Position:
        """Where its run stood."""
        return Position(self.epoch, self.batch, self.step, self.batches)

    def to_dict(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """Something that should tell what it holds, and does not.

    Attributes:
        path: The file; or the folder, if that cannot be listed.
        problem: What is wrong with it.
        modified: When it was last changed, in seconds since the epoch of Unix time; infinite where unknown.
    """

    path: str
    problem: str
    modified: float = math.inf


def read_info(path: str | os.PathLike[str]) -> CheckpointInfo:
    """The description of one file.

    Raises:
        CheckpointFileError: If it is not a checkpoint of this library, or is damaged.
        OSError: If it cannot be opened.
        RemoteError: If its file system does not answer.
    """
    with open_file(path) as file:
        metadata, size = archive.read_metadata_in(file, os.fspath(path)), file.seek(0, os.SEEK_END)
    told = FileMetadata.from_dict(metadata, os.fspath(path))
    score = told.score
    return CheckpointInfo(
        path=os.fspath(path),
        kind=told.kind,
        reasons=told.reasons,
        epoch=told.epoch,
        batch=told.batch,
        step=told.step,
        batches=told.batches,
        metrics=dict(told.metrics),
        monitor=None if score is None else score.monitor,
        mode=None if score is None else score.mode,
        score=None if score is None else score.value,
        created=told.created,
        size=size,
        run_id=told.run_id,
        resumed_from=told.resumed_from,
        exactness=told.exactness,
        weights_only=told.weights_only,
        lineage=told.lineage,
        base_name=told.base_name,
    )


def inspect(path: str) -> CheckpointInfo | Unreadable | None:
    """What one file is: a checkpoint of this library, one that does not tell, or (``None``) one that others wrote.

    Raises:
        FileNotFoundError: If it is gone.
        RemoteError: If its file system does not answer.
    """
    try:
        return read_info(path)
    except (FileNotFoundError, RemoteError):
        raise
    except (CheckpointFileError, OSError) as error:
        names = _members(path) or set()
        if "data.pkl" in names and not _names_our_member(path):
            return None
        why = str(error).removeprefix(f"{path} ").rstrip(".") if archive.MEMBER in names else "its directory is damaged"
        problem = archive.problem(path) or why
        return Unreadable(path=path, problem=problem, modified=modified(path))


def may_be_checkpoint(path: str) -> bool:
    """Whether a file is a checkpoint, or what damage could have made of one; a text file is neither.

    Raises:
        OSError: If it cannot be opened.
    """
    with open_file(path) as file:
        start = file.read(2)
    names = _members(path)
    return start in (b"", b"PK") if names is None else not names.isdisjoint({"data.pkl", archive.MEMBER})


def _names_our_member(path: str) -> bool:
    """By the bytes at its end: damage can take a member out of the archive's directory, and no checksum covers that."""
    with open_file(path) as file:
        file.seek(max(file.seek(0, os.SEEK_END) - (1 << 16), 0))
        return archive.MEMBER.encode() in file.read()


def _members(path: str) -> set[str] | None:
    """What is in an archive, or ``None`` if it is not one that can be opened."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as opened:
            return {name.rpartition("/")[2] for name in opened.namelist()}
    except RemoteError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None


def in_order(infos: Iterable[CheckpointInfo]) -> list[CheckpointInfo]:
    """Newest last: runs by the time of their newest file; in a run what came of a later resume, then by position, time.

    A run that was taken up again at an older file goes on from there; what had come after that file is older, then.
    """
    infos = list(infos)
    active: dict[str, float] = {}
    for info in infos:
        active[info.run_id] = max(info.created, active.get(info.run_id, info.created))
    return sorted(
        infos,
        key=lambda it: (active[it.run_id], it.run_id, it.generation, it.at, it.kind != "manual", it.created, it.path),
    )


def infos(directory: str | os.PathLike[str], *, below: bool = True) -> Iterator[CheckpointInfo]:
    """The checkpoints of this library in a directory; links, files of others and unreadable ones are passed over.

    So are copies that stand for the newest or the best file, even if that one is gone: they are no files of a run.

    Args:
        directory: Where to look: a local path, or a URL.
        below: Whether to look in its subdirectories, too.

    Raises:
        RemoteError: If a remote file system does not answer.
    """
    place = os.fspath(directory)
    for info in for_each(place, checkpoint_files(place, below=below), _info_or_none):
        if info is not None and not _stands_for_another(info):
            yield info


def _info_or_none(path: str) -> CheckpointInfo | None:
    try:
        return read_info(path)
    except RemoteError:
        raise
    except (CheckpointFileError, OSError):
        return None


def checkpoint_files(
    directory: str | os.PathLike[str], *, below: bool = True, on_error: Callable[[OSError], None] | None = None
) -> Iterator[str]:
    """Every ``*.ckpt`` file in a directory, in a fixed order; ``on_error`` as in ``os.walk``.

    Links, pipes and the like are left out, and copies of our files that stand for one that lies beside or below them.

    Raises:
        OSError: If a remote directory cannot be listed.
    """
    if is_remote(directory):
        urls = [url for url in listed(os.fspath(directory), below=below) if url.endswith(SUFFIX)]
        yield from (url for url in urls if not _is_copy(url, (it for it in urls if it.startswith(f"{parent(url)}/"))))
        return
    for folder, subfolders, files in os.walk(directory, onerror=on_error):
        subfolders[:] = sorted(subfolders) if below else []
        paths = [os.path.join(folder, name) for name in sorted(files) if name.endswith(SUFFIX)]
        paths = [path for path in paths if _may_be_file(path)]
        for path in paths:
            deeper = (checkpoint_files(os.path.join(folder, name)) for name in subfolders)
            if not _is_copy(path, itertools.chain(paths, itertools.chain.from_iterable(deeper))):
                yield path


def _may_be_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return True  # whoever opens it hears why


def _is_copy(path: str, others: Iterable[str]) -> bool:
    """Whether a file stands for one of the others, as where links are not to be had, or were followed by a copying."""
    if not _has_reserved_name(path):
        return False
    copy = _info_or_none(path)
    if copy is None or not _stands_for_another(copy):
        return False
    originals = (_info_or_none(other) for other in others if not _has_reserved_name(other))
    return any(it is not None and replace(it, path=copy.path) == copy for it in originals)


def _stands_for_another(info: CheckpointInfo) -> bool:
    """By its name, which is ours; what users save by hand, and other callbacks, may be called anything."""
    return _has_reserved_name(info.path) and info.kind != "manual"


def _has_reserved_name(path: str) -> bool:
    return is_reserved(os.path.basename(path).removesuffix(SUFFIX))
