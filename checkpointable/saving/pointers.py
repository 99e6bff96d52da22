"""``last.ckpt`` and ``best.ckpt``: links to the newest and the best file of a run. Each run has its own."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from checkpointable.catalog.info import FileMetadata, metadata_of
from checkpointable.policy import names
from checkpointable.policy.reasons import Reason
from checkpointable.storage.files import exists
from checkpointable.storage.store import TAKING_A_NAME, Store


def move(store: Store, role: str, target: str, run_id: str) -> list[str]:
    """Make ``<role>.ckpt`` a link to a file; ``<role>-v1.ckpt`` if that name belongs to another run, and so on.

    Where links are not possible, it becomes a copy. On a remote file system there is neither: ``latest`` and ``best``
    need none. Without a target (``""``), broken links of that role are removed. Returns warnings about what failed.
    """
    if not store.has_links:
        return []
    try:
        if not target:
            store.remove_broken_links(role)
        elif store.exists(target):
            with TAKING_A_NAME:  # a file that the user saves at this moment may have the name first
                store.link(_name_for(store, role, target, run_id), target)
    except OSError as error:
        link = store.path(names.versioned(role, 0))
        if target:
            return [f"cannot move {link} to {target}: {error}. The checkpoint itself is safe."]
        return [f"cannot remove the broken link {link}: {error}. Delete it by hand."]
    return []


def _name_for(store: Store, role: str, target: str, run_id: str) -> str:
    """The first name of that role that does not belong to another run."""
    metadata = metadata_of(target)
    resumed_from = None if metadata is None else metadata.resumed_from
    links = (store.path(names.versioned(role, version)) for version in itertools.count())
    return next(link for link in links if _is_free(link, target, run_id, resumed_from))


def _is_free(link: str, target: str, run_id: str, resumed_from: str | None) -> bool:
    """Whether the link can take this name: it is unused, or belongs to a link or a copy that this run made."""
    if not os.path.lexists(link):
        return True
    metadata = metadata_of(link)
    is_own = metadata is not None and metadata.run_id == run_id
    if os.path.islink(link):
        return is_own or not exists(link)
    if metadata is None or not is_own or metadata.kind == Reason.MANUAL or os.path.samefile(link, target):
        return False
    is_resumed_from = resumed_from is not None and os.path.realpath(resumed_from) == link
    return not (is_resumed_from and _is_only_copy(link, metadata))


def _is_only_copy(copy: str, metadata: FileMetadata) -> bool:
    """Whether the original of a copy does not exist any more."""
    others = (path for path in Path(copy).parent.rglob(f"*{names.SUFFIX}") if not names.is_reserved(path.stem))
    originals = (metadata_of(path) for path in others if not path.is_symlink())
    return all(it is None or (it.run_id, it.created) != (metadata.run_id, metadata.created) for it in originals)
