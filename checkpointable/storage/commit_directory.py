"""Makes a directory durable before it becomes visible, as ``commit`` does for a file.

The directory is filled under a temporary name beside its final one, checked, and renamed. A name that is taken stays as
it is: two names cannot be exchanged in one step everywhere, and in between there would be neither.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from checkpointable.storage import locks
from checkpointable.storage.commit import make, sync_directory, sync_name, temporary_in


def commit(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a directory durably. It appears under its name as ``fill`` has made it, or not at all.

    Args:
        path: The final name. Its parents are made if they are missing.
        fill: Fills an empty directory with durable files, and checks them.

    Raises:
        FileExistsError: If the name is taken.
        OSError: If the file system refuses.
    """
    _require_free(path)
    make(path.parent)
    with temporary_directory_in(path.parent) as temporary:
        fill(temporary)
        sync_directory(temporary)
        _require_free(path)
        os.rename(temporary, path)
    sync_name(path)


@contextlib.contextmanager
def temporary_directory_in(directory: Path) -> Iterator[Path]:
    """An empty directory that no other process takes for a leftover. It is deleted at the end of the block."""
    with temporary_in(directory) as temporary, locks.locked_directory(temporary):
        yield temporary


def remove(path: Path) -> None:
    """Delete a directory: it disappears whole. What cannot be deleted of it is swept at the next start."""
    with temporary_in(path.parent) as temporary:
        os.rename(path, temporary)
        sync_directory(path.parent)


def _require_free(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
