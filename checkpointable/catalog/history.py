"""Reads the history of a run from one of its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from checkpointable._errors import CheckpointFileError
from checkpointable.policy.as_builtin import from_builtin, misfits, required
from checkpointable.policy.history import History
from checkpointable.storage.format import checkpoint


def read_history(path: str | os.PathLike[str]) -> History | None:
    """What a checkpoint tells of its run up to itself, local or remote; ``None`` if it was saved without a history.

    Raises:
        CheckpointFileError: If the file is damaged, or its history is.
        OSError: If it cannot be read.
    """
    found = checkpoint.read_history(path)
    if found is None:
        return None
    missing = [f"{name} is missing" for name in required(History) if name not in found]
    wrong = missing or misfits(History, found)
    if wrong:
        raise CheckpointFileError(f"{os.fspath(path)} has a history that cannot be read: {', '.join(wrong)}.")
    return from_builtin(History, found)


def with_ends(history: History, ends: Mapping[str, str]) -> History:
    """The same with what ended the attempts whose files do not tell it."""
    sessions = [it if it.ended is not None else replace(it, ended=ends.get(it.attempt)) for it in history.sessions]
    return replace(history, sessions=tuple(sessions))
