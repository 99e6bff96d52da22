"""Finds the checkpoints at a path, puts them in order, and finds the files there that may be damaged checkpoints."""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from checkpointable._errors import CheckpointFileError, RemoteError
from checkpointable.catalog.info import CheckpointInfo, read_info
from checkpointable.policy.names import SUFFIX, is_reserved
from checkpointable.storage import files
from checkpointable.storage.format import archive, verify, zip_directory
from checkpointable.storage.format.shards import is_marked
from checkpointable.storage.paths import Paths, is_remote, join, normalize_paths, parent

_LOOK_SECONDS = 60.0
_INSTEAD = "Pass the directory that the checkpoints are in, or one of its *.ckpt files."


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A file that may be a damaged checkpoint, or a folder that cannot be listed."""

    path: str
    problem: str
    modified: float = math.inf  # seconds since the epoch of Unix time; infinite if unknown


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is at a path."""

    infos: list[CheckpointInfo] = field(default_factory=list)  # those of this library, newest last
    unreadable: list[Unreadable] = field(default_factory=list)
    others: int = 0  # checkpoints of other libraries
    is_file: bool = False
    copies: dict[str, list[CheckpointInfo]] = field(default_factory=dict)  # at later places, by the path of the first
    unreached: list[str] = field(default_factory=list)  # why places beside these could not be looked at


def scan(paths: Paths) -> Found:
    """Find the checkpoints at or below a path or several, by their metadata only. It raises what ``latest`` raises."""
    for found in looks(paths):
        if all(files.is_there(lost.path) for lost in found.unreadable):
            break
    return found


def looks(paths: Paths) -> Iterator[Found]:
    """What is at a path or several, looked up again for each item, for at most a minute.

    A run deletes a file only after it has saved a newer one. So if a file was deleted between listing and reading, the
    next look finds the newer one.
    """
    places, deadline = normalize_paths(paths), time.monotonic() + _LOOK_SECONDS
    yield _look_at_all(places)
    while time.monotonic() < deadline:
        yield _look_at_all(places)


def _look_at_all(places: list[str]) -> Found:
    """What is at all of them, each checkpoint once.

    One that cannot be reached is an error only if nothing is found at the others.
    """
    looked: list[Found] = []
    unreached: list[RemoteError] = []
    for place in places:
        try:
            looked.append(_look(place))
        except RemoteError as error:
            unreached.append(error)
    if unreached and not any(found.infos for found in looked):
        raise unreached[0]
    if len(places) == 1:
        return looked[0]
    first: dict[tuple[object, ...], CheckpointInfo] = {}
    copies: dict[str, list[CheckpointInfo]] = {}
    for info in (info for found in looked for info in found.infos):
        if (original := first.setdefault(info.identity, info)) is not info:
            copies.setdefault(original.path, []).append(info)
    return Found(
        infos=in_order(first.values()),
        copies=copies,
        unreadable=[lost for found in looked for lost in found.unreadable],
        others=sum(found.others for found in looked),
        unreached=[str(error) for error in unreached],
    )


def _look(place: str) -> Found:
    if is_remote(place) and not place.endswith(SUFFIX):
        listed = files.sizes(place, below=True)
        if listed:  # so it is a directory, and no further request has to tell
            return _directory(place, listed)
    kind = files.kind(place)
    if kind is None:
        return Found()
    return _directory(place) if kind == "directory" and not is_marked(place) else _file(place)


def _directory(place: str, listed: Mapping[str, int | None] | None = None) -> Found:
    """What is in a directory; ``listed`` are all files at or below a URL, with their sizes."""
    unreadable: list[Unreadable] = []

    def note(error: OSError) -> None:
        if error.filename == place and not isinstance(error, FileNotFoundError):
            raise error
        unreadable.append(Unreadable(path=str(error.filename), problem=f"cannot be listed: {error.strerror}"))

    if listed is None and is_remote(place):
        listed = files.sizes(place, below=True)
    sizes = listed or {}
    paths = checkpoint_files(place, on_error=note) if listed is None else filter(_has_suffix, listed)
    infos, others = [], 0
    for inspected in files.for_each(place, paths, lambda path: _inspect_or_deleted(path, sizes.get(path))):
        if isinstance(inspected, Unreadable):
            unreadable.append(inspected)
        elif inspected is not None:
            infos.append(inspected)
        else:
            others += 1
    return Found(infos=in_order(_without_copies(infos)), unreadable=unreadable, others=others)


def _inspect_or_deleted(path: str, size: int | None) -> CheckpointInfo | Unreadable | None:
    try:
        known = None if size is None else _read_as_listed(path, size)
        return inspect(path) if known is None else known
    except FileNotFoundError:
        return Unreadable(path=path, problem="it was deleted while the directory was searched")


def _read_as_listed(path: str, size: int) -> CheckpointInfo | None:
    """A remote file of a size that a listing has told; ``None`` if that does not fit: it may have been replaced since.

    Then it is looked at as if nothing were known of it. A store refuses to read a range behind the end of a file.
    """
    try:
        return read_info(path, size=size)
    except CheckpointFileError:
        return None
    except RemoteError as error:
        if isinstance(error.__cause__, TimeoutError):
            raise
        return None


def _file(place: str) -> Found:
    path = os.path.realpath(place) if os.path.islink(place) else place
    if not files.is_there(path):
        return Found(unreadable=[Unreadable(path=place, problem=f"it links to {path}, which does not exist")])
    if not is_marked(path) and (not files.is_file(path) or not may_be_checkpoint(path)):
        raise CheckpointFileError(f"{path} is not a checkpoint, neither an intact nor a damaged one. {_INSTEAD}")
    inspected = inspect(path)
    if inspected is None:
        raise CheckpointFileError(
            f"{path} is a checkpoint, but not one that checkpointable wrote."
            f" Pass it to Trainer.fit(ckpt_path=...) directly. Otherwise: {_INSTEAD}"
        )
    if isinstance(inspected, Unreadable):
        return Found(unreadable=[inspected], is_file=True)
    return Found(infos=[inspected], is_file=True)


def inspect(path: str) -> CheckpointInfo | Unreadable | None:
    """What one file is: a checkpoint of this library, unreadable, or (``None``) a checkpoint of another library."""
    try:
        return read_info(path)
    except (FileNotFoundError, RemoteError):
        raise
    except (CheckpointFileError, OSError) as error:
        if is_marked(path):
            return Unreadable(path=path, problem=str(error).rstrip("."), modified=files.modified(path))
        names = _members(path) or set()
        if "data.pkl" in names and not _names_our_member(path):
            return None
        why = str(error).removeprefix(f"{path} ").rstrip(".") if archive.MEMBER in names else "its directory is damaged"
        problem = verify.problem(path) or why
        return Unreadable(path=path, problem=problem, modified=files.modified(path))


def may_be_checkpoint(path: str) -> bool:
    """Whether a file is a checkpoint, or may be a damaged one. A text file is neither."""
    with files.open_file(path) as file:
        start = file.read(2)
    names = _members(path)
    return start in (b"", b"PK") if names is None else not names.isdisjoint({"data.pkl", archive.MEMBER})


def _names_our_member(path: str) -> bool:
    """Whether the end of a file holds the name of our member, which damage can remove from the archive's directory."""
    with files.open_file(path) as file:
        file.seek(max(file.seek(0, os.SEEK_END) - (1 << 16), 0))
        return archive.MEMBER.encode() in file.read()


def _members(path: str) -> set[str] | None:
    """The names of the members of an archive, or ``None`` if it cannot be opened as one."""
    try:
        with files.open_file(path) as file:
            entries = zip_directory.read(file).entries()
            return {entry.name.rpartition(b"/")[2].decode(errors="replace") for entry in entries}
    except RemoteError:
        raise
    except archive.DAMAGE:
        return None


def in_order(infos: Iterable[CheckpointInfo]) -> list[CheckpointInfo]:
    """Sort checkpoints, newest last: runs by the time of their newest file; files of a run by resume, position, time.

    If a run was resumed from an older file, the files that had followed that file come before those of the resume.
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
    """The checkpoints of this library in a directory. Links, unreadable files and those of other libraries are skipped.

    Copies made in place of links to the newest or the best file are skipped too, even if the original is missing.
    ``below``: search its subdirectories as well.
    """
    place = os.fspath(directory)
    for info in files.for_each(place, checkpoint_files(place, below=below), _info_or_none):
        if info is not None and not _is_in_place_of_a_link(info):
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
    """The ``*.ckpt`` files and directories of shards in a directory, in a fixed order; ``on_error`` as in ``os.walk``.

    Links, pipes and the like are skipped.
    """
    if is_remote(directory):
        yield from filter(_has_suffix, files.listed(os.fspath(directory), below=below))
        return
    for folder, subfolders, names in os.walk(directory, onerror=on_error):
        shards = [name for name in subfolders if name.endswith(SUFFIX) and is_marked(os.path.join(folder, name))]
        subfolders[:] = sorted(set(subfolders) - set(shards)) if below else []
        paths = [os.path.join(folder, name) for name in sorted([*names, *shards]) if name.endswith(SUFFIX)]
        yield from filter(_may_be_checkpoint, paths)


def _has_suffix(path: str) -> bool:
    return path.endswith(SUFFIX)


def _may_be_checkpoint(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
        return stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and is_marked(path))
    except OSError:
        return True  # opening it raises the reason


def _without_copies(infos: Iterable[CheckpointInfo]) -> list[CheckpointInfo]:
    """All but those made in place of a link to a file beside or below them: by copying a link, or for want of links."""
    infos = list(infos)
    originals = [info for info in infos if not _has_reserved_name(info.path)]
    return [info for info in infos if not (_is_in_place_of_a_link(info) and _is_copy(info, originals))]


def _is_copy(info: CheckpointInfo, originals: Iterable[CheckpointInfo]) -> bool:
    below = join(parent(info.path), "")
    return any(replace(it, path=info.path) == info and it.path.startswith(below) for it in originals)


def _is_in_place_of_a_link(info: CheckpointInfo) -> bool:
    """Whether a file has a name reserved for links. Files that users and other callbacks save may have any name."""
    return _has_reserved_name(info.path) and info.kind != "manual"


def _has_reserved_name(path: str) -> bool:
    return is_reserved(os.path.basename(path).removesuffix(SUFFIX))
