"""Which kind of store a directory is."""

from __future__ import annotations

import os

from checkpointable.storage.local import LocalStore
from checkpointable.storage.paths import is_remote, normalize_path
from checkpointable.storage.remote import RemoteStore
from checkpointable.storage.store import Store


def store_at(directory: str | os.PathLike[str]) -> Store:
    """The store at a local path or a URL."""
    place = normalize_path(directory)
    return RemoteStore(place) if is_remote(place) else LocalStore(place)
