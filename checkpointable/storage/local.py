"""A directory of this machine, or one mounted as if it were."""

from __future__ import annotations

import io
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from checkpointable._errors import CheckpointFileError
from checkpointable.policy import names
from checkpointable.storage import commit, direct
from checkpointable.storage.files import exists
from checkpointable.storage.format import archive
from checkpointable.storage.store import Content


class LocalStore:
    """A ``Store`` on the local file system. See there for its methods.

    Args:
        directory: Its path. Links in it are followed, once: what is kept is compared by name.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.path.realpath(os.path.expanduser(directory))

    def prepare(self, *, below: bool) -> None:
        """Make the directory, try it, sweep it."""
        commit.prepare(Path(self.directory), below=below)

    def path(self, name: str) -> str:
        """The path of a file in it."""
        return os.path.join(self.directory, name)

    def contains(self, path: str) -> bool:
        """Whether a path lies in it."""
        return Path(path).is_relative_to(self.directory)

    def exists(self, path: str) -> bool:
        """Whether there is something at that path."""
        return exists(path)

    def write(self, content: Content, path: str, *, overwrite: bool) -> None:
        """Commit a file."""
        write(content, Path(path), overwrite=overwrite)

    def point(self, role: str, target: str, owner: str) -> None:
        """Make a link; where links are not to be had, a copy. Without a target: remove the links that lead nowhere."""
        if target:
            resumed_from = _resumed_from(target)
            link = next(link for link in self._names_of(role) if _is_free(link, Path(target), owner, resumed_from))
            commit.point(link, Path(target))
            return
        for link in itertools.takewhile(os.path.lexists, self._names_of(role)):
            if link.is_symlink() and not exists(link) and self.contains(os.path.realpath(link)):
                commit.remove(link)

    def remove(self, path: str) -> None:
        """Delete a file, durably; before it the links that lead to it, as they would lead nowhere."""
        for role in (names.LAST, names.BEST):
            for link in itertools.takewhile(os.path.lexists, self._names_of(role)):
                if link.is_symlink() and os.path.realpath(link) == os.path.realpath(path):
                    commit.remove(link)
        commit.remove(Path(path))

    def metadata(self, path: str) -> dict[str, Any]:
        """What a file tells about itself."""
        return archive.read_metadata(path)

    def problem(self, path: str) -> str | None:
        """What is wrong with a file's bytes."""
        return archive.problem(path)

    def free_bytes(self) -> int | None:
        """Room for new files, as far as this user may use it."""
        place = next((place for place in (Path(self.directory), *Path(self.directory).parents) if place.exists()), None)
        return None if place is None else shutil.disk_usage(place).free

    def _names_of(self, role: str) -> Iterator[Path]:
        """What may stand for the newest or the best file: the first name that is not another run's."""
        return (Path(self.path(names.versioned(role, version))) for version in itertools.count())


def write(content: Content, path: Path, *, overwrite: bool) -> None:
    """Commit a file, read back from the disk and verified before it becomes visible.

    Raises:
        FileExistsError: If the name is taken and ``overwrite`` is false.
        SaveError: If the file does not verify.
        OSError: If the file system refuses.
    """

    def fill(file: BinaryIO) -> None:
        direct.write(content, file)

    commit.commit(path, fill, problem=_problem, overwrite=overwrite)


def _problem(path: Path) -> str | None:
    with io.BufferedReader(direct.DirectReader(path)) as file:
        return archive.problem_in(file)


def _is_free(link: Path, target: Path, owner: str, resumed_from: str | None) -> bool:
    """Whether a name may be made to stand for a file: nothing has it, or a link or a copy that this run has made."""
    if not os.path.lexists(link):
        return True
    if link.is_symlink():
        return not exists(link) or _told(link).get("run_id") == owner
    told = _told(link)
    if told.get("run_id") != owner or told.get("kind") == "manual" or os.path.samefile(link, target):
        return False
    is_resumed_from = resumed_from is not None and os.path.realpath(resumed_from) == str(link)
    return not (is_resumed_from and _is_the_only_one(link))


def _is_the_only_one(copy: Path) -> bool:
    """Whether what a file is a copy of has gone, so that the copy is all that is left."""
    others = (path for path in copy.parent.rglob(f"*{names.SUFFIX}") if not names.is_reserved(path.stem))
    told = _told(copy)
    return all(
        path.is_symlink() or any(_told(path).get(key) != told.get(key) for key in ("run_id", "created"))
        for path in others
    )


def _resumed_from(target: str) -> str | None:
    found = _told(Path(target)).get("resumed_from")
    return found if isinstance(found, str) else None


def _told(path: Path) -> dict[str, Any]:
    """What a file tells about itself: nothing, where it is not one of ours."""
    try:
        return archive.read_metadata(path)
    except (CheckpointFileError, OSError):
        return {}
