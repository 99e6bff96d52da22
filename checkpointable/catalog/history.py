"""Reads the history of a run from one of its files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from checkpointable._errors import CheckpointFileError
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.traces import End
from checkpointable.policy.as_builtin import from_builtin, misfits, required
from checkpointable.policy.history import History
from checkpointable.storage.format import checkpoint

_MOST_WITHOUT = 5


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


@dataclass
class Newest:
    """The newest history of some files.

    Attributes:
        info: The file that has it; ``None`` if none of the newest has one.
        history: The history.
        problems: Why those of newer files cannot be read, by path: they are damaged, or deleted by now.
    """

    info: CheckpointInfo | None = None
    history: History | None = None
    problems: dict[str, CheckpointFileError | FileNotFoundError] = field(default_factory=dict)


def newest_history(infos: Sequence[CheckpointInfo]) -> Newest:
    """The history in the newest file that has one; ``infos`` are sorted, newest last.

    Only a few files without a history are asked: an older version has written them, and then all have none.
    """
    found, without = Newest(), 0
    for info in reversed(infos):
        try:
            history = read_history(info.path)
        except (CheckpointFileError, FileNotFoundError) as error:
            found.problems[info.path] = error
            continue
        if history is not None:
            found.info, found.history = info, history
            break
        without += 1
        if without == _MOST_WITHOUT:
            break
    return found


def with_ends(history: History, ends: Mapping[str, End]) -> History:
    """The same with what ended the sessions whose files do not tell it.

    Several fits of one process are sessions of one attempt, and its trace is of the latest of them.
    """
    latest = {it.attempt: it for it in history.sessions}
    told = {name: end for name, end in ends.items() if name in latest and end.session in (None, latest[name].started)}
    sessions = [
        replace(it, ended=told[it.attempt].text)
        if it.ended is None and it is latest[it.attempt] and it.attempt in told
        else it
        for it in history.sessions
    ]
    return replace(history, sessions=tuple(sessions))
