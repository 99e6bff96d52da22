"""Where the files of a run lie: what the saving side asks of a directory, be it local or on a remote file system.

A method that changes or reads files raises ``OSError`` where the file system refuses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from checkpointable.storage.format import checkpoint

# Held while a file of the user is written, and while a link takes a name after a look at what has it.
# A thread may take it again: a signal's handler saves in the middle of anything, also of a save.
TAKING_A_NAME = threading.RLock()


class Content(Protocol):
    """The whole of a file, in memory, as it will lie on disk."""

    @property
    def size(self) -> int:
        """Bytes."""

    def pieces(self) -> Iterator[memoryview]:
        """The bytes in order, from the first on. May be asked for again, after a failure.

        Each piece stays as it is until all have been used.
        """

    def problem_in(self, file: BinaryIO) -> str | None:
        """What is wrong with a file that all pieces were written into, read from its begin to its end, or ``None``."""


class Store(Protocol):
    """A directory of checkpoints. Paths are whole: what ``path`` gives, and what the catalogue lists.

    Attributes:
        directory: The directory, as an absolute path or a URL.
        has_links: Whether a name can stand for a file of another name.
        has_directories: Whether a checkpoint can be a directory of files that other processes write.
        overwrites_safely: Whether a file that is overwritten stays until the new one is durable and verified.
    """

    directory: str
    has_links: bool
    has_directories: bool
    overwrites_safely: bool

    def prepare(self, *, below: bool) -> None:
        """Make the directory, show that it can be written, sweep what dead processes left half-written.

        ``below`` says that files will be in its subdirectories, too. ``SaveError`` says why it cannot be used.
        """

    def path(self, name: str) -> str:
        """The path of a file, by its name in the directory (which may hold ``/``)."""

    def contains(self, path: str) -> bool:
        """Whether a path lies in the directory or below."""

    def exists(self, path: str) -> bool:
        """Whether there is something at that path."""

    def present(self, paths: Iterable[str]) -> Container[str]:
        """Tells which files are there: at least of these, and of others in their directories.

        On a remote file system it is looked up at once, with as few questions as possible.
        """

    def write(self, content: Content, path: str, *, overwrite: bool) -> None:
        """Make a file durable and verify it; it appears under its name whole, or not at all.

        Raises:
            FileExistsError: If the name is taken and ``overwrite`` is false.
            SaveError: If what lies there does not verify.
        """

    def write_directory(self, fill: Callable[[Path], None], path: str) -> None:
        """Make a directory durable that ``fill`` fills; it appears whole, or not at all. Only if ``has_directories``.

        Raises:
            FileExistsError: If the name is taken.
        """

    def link(self, link: str, target: str) -> None:
        """Make ``link`` stand for the file ``target``, both in the directory. Only where ``has_links``."""

    def remove_broken_links(self, role: str) -> None:
        """Remove the links ``<role>.ckpt``, ``<role>-v1.ckpt`` ... that lead to no file. Only where ``has_links``."""

    def remove(self, path: str) -> None:
        """Delete a file or a directory of shards, durably. One that is gone already is no error."""

    def problem(self, path: str) -> str | None:
        """What is wrong with the bytes of a checkpoint, or ``None``. Reads it through."""
        return checkpoint.problem(path)

    def free_bytes(self) -> int | None:
        """Room for new files; ``None`` where it is unknown."""
