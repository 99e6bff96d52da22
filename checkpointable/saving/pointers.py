"""``last.ckpt`` and ``best.ckpt``: links to the newest and the best file of a run. Each run has its own."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from checkpointable._errors import CheckpointFileError
from checkpointable.catalog.info import FileMetadata
from checkpointable.policy import names
from checkpointable.policy.reasons import Reason
from checkpointable.storage.files import exists
from checkpointable.storage.format import archive
from checkpointable.storage.store import Store


def move(store: Store, role: str, target: str, run_id: str) -> list[str]:
    """Make ``<role>.ckpt`` a link to a file; ``<role>-v1.ckpt`` where that name belongs to another run, and so on.

    Where links are not possible, it becomes a copy. On a remote file system there is neither: ``latest`` and ``best``
    need none.

    Args:
        store: Where the files lie.
        role: ``"last"`` or ``"best"``.
        target: The file. ``""``: there is none, so links of that role that lead to no file are removed.
        run_id: The run.

    Returns:
        Warnings of what failed. The checkpoint itself is safe.
    """
    if not store.has_links:
        return []
    try:
        if not target:
            store.remove_broken_links(role)
        elif store.exists(target):
            store.link(_name_for(store, role, target, run_id), target)
    except OSError as error:
        link = store.path(names.versioned(role, 0))
        if target:
            return [f"cannot move {link} to {target}: {error}. The checkpoint itself is safe."]
        return [f"cannot remove {link}, which leads to no file any more: {error}. Delete it by hand."]
    return []


def _name_for(store: Store, role: str, target: str, run_id: str) -> str:
    """The first name of that role that does not belong to another run."""
    metadata = _metadata(target)
    resumed_from = None if metadata is None else metadata.resumed_from
    for version in itertools.count():
        link = store.path(names.versioned(role, version))
        if _is_free(Path(link), Path(target), run_id, resumed_from):
            return link
    raise AssertionError("unreachable: versions do not end")


def _is_free(link: Path, target: Path, run_id: str, resumed_from: str | None) -> bool:
    """Whether a name can become the link: nothing has it, or a link or a copy that this run made."""
    if not os.path.lexists(link):
        return True
    metadata = _metadata(link)
    is_own = metadata is not None and metadata.run_id == run_id
    if link.is_symlink():
        return is_own or not exists(link)
    if metadata is None or not is_own or metadata.kind == Reason.MANUAL or os.path.samefile(link, target):
        return False
    is_resumed_from = resumed_from is not None and os.path.realpath(resumed_from) == str(link)
    return not (is_resumed_from and _is_only_copy(link, metadata))


def _is_only_copy(copy: Path, metadata: FileMetadata) -> bool:
    """Whether the original of a copy is gone."""
    others = (path for path in copy.parent.rglob(f"*{names.SUFFIX}") if not names.is_reserved(path.stem))
    originals = (_metadata(path) for path in others if not path.is_symlink())
    return all(it is None or (it.run_id, it.created) != (metadata.run_id, metadata.created) for it in originals)


def _metadata(path: str | Path) -> FileMetadata | None:
    """What a file states about itself; ``None`` if it is not one of ours."""
    try:
        return FileMetadata.from_dict(archive.read_metadata(path), os.fspath(path))
    except (CheckpointFileError, OSError):
        return None
