"""A directory of this machine, or one that is mounted here; and which store a path or URL needs."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from pathlib import Path

from checkpointable.policy import names
from checkpointable.storage import commit, commit_directory, direct
from checkpointable.storage.files import exists
from checkpointable.storage.format.shards import is_marked
from checkpointable.storage.paths import is_remote, normalize_path
from checkpointable.storage.remote import RemoteStore
from checkpointable.storage.store import Content, Store


class LocalStore(Store):
    """A ``Store`` on the local file system.

    Args:
        directory: Its path. Links in it are followed, once: what is kept is compared by name.
    """

    has_links = True
    has_directories = True
    overwrites_safely = True

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.path.realpath(os.path.expanduser(directory))
        self._prefix = os.path.join(self.directory, "")

    def prepare(self, *, below: bool) -> None:
        """Make the directory, check that it can be written, and delete temporary files that dead processes left."""
        commit.prepare(Path(self.directory), below=below)

    def path(self, name: str) -> str:
        """The path of a file in the directory."""
        return os.path.join(self.directory, name)

    def contains(self, path: str) -> bool:
        """Whether a path lies in the directory or below."""
        return path.startswith(self._prefix)

    def exists(self, path: str) -> bool:
        """Whether something is at that path."""
        return exists(path)

    def present(self, paths: Iterable[str]) -> Container[str]:
        """Tells which files are there. Few are looked at one by one, many by one look at each directory."""
        asked = list(paths)
        return _Existing() if len(asked) < _FEW else _Listed()

    def write(self, content: Content, path: str, *, overwrite: bool) -> None:
        """Write a file durably, and verify it before it becomes visible."""
        write(content, Path(path), overwrite=overwrite)

    def write_directory(self, fill: Callable[[Path], None], path: str) -> None:
        """Make a directory durably; it becomes visible when it is complete."""
        commit_directory.commit(Path(path), fill)

    def link(self, link: str, target: str) -> None:
        """Make a link; where links are not possible, a copy."""
        commit.point(Path(link), Path(target))

    def remove_broken_links(self, role: str) -> None:
        """Remove the links of a role that lead to no file in here."""
        for link in self._links(role):
            if not exists(link) and self.contains(os.path.realpath(link)):
                commit.remove(link)

    def remove(self, path: str) -> None:
        """Delete a checkpoint, durably; before it the links that lead to it, as they would lead nowhere."""
        for role in (names.LAST, names.BEST):
            for link in self._links(role):
                if os.path.realpath(link) == os.path.realpath(path):
                    commit.remove(link)
        delete = commit_directory.remove if is_marked(path) else commit.remove
        delete(Path(path))

    def free_bytes(self) -> int | None:
        """Free bytes that this user may use; ``None`` where the file system does not tell."""
        place = next((place for place in (Path(self.directory), *Path(self.directory).parents) if place.exists()), None)
        try:
            usage = None if place is None else shutil.disk_usage(place)
        except OSError:
            return None
        return None if usage is None or not usage.total else usage.free

    def _links(self, role: str) -> Iterator[Path]:
        versions = (Path(self.path(names.versioned(role, version))) for version in itertools.count())
        return filter(Path.is_symlink, itertools.takewhile(os.path.lexists, versions))


_FEW = 64


class _Existing:
    def __contains__(self, path: object) -> bool:
        return exists(str(path))


class _Listed:
    """Lists each directory once, when a file in it is asked for. One that may not be listed is asked file by file."""

    def __init__(self) -> None:
        self._names: dict[str, set[str] | None] = {}

    def __contains__(self, path: object) -> bool:
        folder, _, name = str(path).rpartition(os.sep)
        if folder not in self._names:
            self._names[folder] = _names_in(folder)
        there = self._names[folder]
        return exists(str(path)) if there is None else name in there


def _names_in(folder: str) -> set[str] | None:
    """The names in a directory, without links that lead nowhere; ``None`` if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if not entry.is_symlink() or exists(entry.path)}
    except FileNotFoundError:
        return set()
    except OSError:
        return None


def write(content: Content, path: Path, *, overwrite: bool) -> None:
    """Write a file durably, as ``commit`` does. It is read back from the disk and verified."""
    commit.commit(path, partial(direct.write, content), problem=partial(_problem, content), overwrite=overwrite)


def _problem(content: Content, path: Path) -> str | None:
    with direct.open_file(path) as file:
        return content.problem_in(file)


def store_at(directory: str | os.PathLike[str]) -> Store:
    """The store at a local path or a URL."""
    place = normalize_path(directory)
    return RemoteStore(place) if is_remote(place) else LocalStore(place)
