"""What lies at a path: the checkpoints there in order, and the files that should be checkpoints and cannot be read."""

from __future__ import annotations

import itertools
import math
import os
import stat
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from checkpointable._errors import CheckpointFileError, RemoteError
from checkpointable.catalog.info import CheckpointInfo, read_info
from checkpointable.policy.names import SUFFIX, is_reserved
from checkpointable.storage import files
from checkpointable.storage.format import archive
from checkpointable.storage.paths import is_remote, normalize_path, parent

_LOOK_SECONDS = 60.0
_INSTEAD = "Pass the directory that the checkpoints are in, or one of its *.ckpt files."


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


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies at a path: checkpoints of this library, newest last, and what does not tell whether it is one."""

    infos: list[CheckpointInfo] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    is_file: bool = False


def scan(path: str | os.PathLike[str]) -> Found:
    """Everything at or below a path, by its metadata only; nothing if there is no such path.

    Raises:
        CheckpointFileError: If the path is a file that is not a checkpoint of this library.
        OSError: If the directory cannot be listed.
        RemoteError: If a remote file system does not answer. It is no reason to start from nothing.
    """
    for found in looks(path):
        if all(files.is_there(lost.path) for lost in found.unreadable):
            break
    return found


def looks(path: str | os.PathLike[str]) -> Iterator[Found]:
    """Look at a path once, and again for as long as the caller asks, up to a minute.

    A file that was deleted between the listing and its reading is no reason to give up: the run that deleted it had
    saved a newer one before, which the next look finds.
    """
    place, deadline = normalize_path(path), time.monotonic() + _LOOK_SECONDS
    yield _look(place)
    while time.monotonic() < deadline:
        yield _look(place)


def _look(place: str) -> Found:
    kind = files.kind(place)
    if kind is None:
        return Found()
    return _directory(place) if kind == "directory" else _file(place)


def _directory(place: str) -> Found:
    unreadable: list[Unreadable] = []

    def note(error: OSError) -> None:
        if error.filename == place and not isinstance(error, FileNotFoundError):
            raise error
        unreadable.append(Unreadable(path=str(error.filename), problem=f"cannot be listed: {error.strerror}"))

    infos = []
    for seen in files.for_each(place, checkpoint_files(place, on_error=note), _inspect_or_gone):
        if isinstance(seen, Unreadable):
            unreadable.append(seen)
        elif seen is not None:
            infos.append(seen)
    return Found(infos=in_order(infos), unreadable=unreadable)


def _inspect_or_gone(path: str) -> CheckpointInfo | Unreadable | None:
    try:
        return inspect(path)
    except FileNotFoundError:
        return Unreadable(path=path, problem="it was deleted while the directory was searched")


def _file(place: str) -> Found:
    path = os.path.realpath(place) if os.path.islink(place) else place
    if not files.is_there(path):
        return Found(unreadable=[Unreadable(path=place, problem=f"it links to {path}, which is not there")])
    if not files.is_file(path) or not may_be_checkpoint(path):
        raise CheckpointFileError(f"{path} is not a checkpoint, neither whole nor damaged. {_INSTEAD}")
    seen = inspect(path)
    if seen is None:
        raise CheckpointFileError(
            f"{path} is a checkpoint, but not one that checkpointable wrote."
            f" Give it to Trainer.fit(ckpt_path=...) itself. Otherwise: {_INSTEAD}"
        )
    if isinstance(seen, Unreadable):
        return Found(unreadable=[seen], is_file=True)
    return Found(infos=[seen], is_file=True)


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
        return Unreadable(path=path, problem=problem, modified=files.modified(path))


def may_be_checkpoint(path: str) -> bool:
    """Whether a file is a checkpoint, or what damage could have made of one; a text file is neither.

    Raises:
        OSError: If it cannot be opened.
    """
    with files.open_file(path) as file:
        start = file.read(2)
    names = _members(path)
    return start in (b"", b"PK") if names is None else not names.isdisjoint({"data.pkl", archive.MEMBER})


def _names_our_member(path: str) -> bool:
    """By the bytes at its end: damage can take a member out of the archive's directory, and no checksum covers that."""
    with files.open_file(path) as file:
        file.seek(max(file.seek(0, os.SEEK_END) - (1 << 16), 0))
        return archive.MEMBER.encode() in file.read()


def _members(path: str) -> set[str] | None:
    """What is in an archive, or ``None`` if it is not one that can be opened."""
    try:
        with files.open_file(path) as file, zipfile.ZipFile(file) as opened:
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
    for info in files.for_each(place, checkpoint_files(place, below=below), _info_or_none):
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
        urls = [url for url in files.listed(os.fspath(directory), below=below) if url.endswith(SUFFIX)]
        yield from (url for url in urls if not _is_copy(url, (it for it in urls if it.startswith(f"{parent(url)}/"))))
        return
    for folder, subfolders, names in os.walk(directory, onerror=on_error):
        subfolders[:] = sorted(subfolders) if below else []
        paths = [os.path.join(folder, name) for name in sorted(names) if name.endswith(SUFFIX)]
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
