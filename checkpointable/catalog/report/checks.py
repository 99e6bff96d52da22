"""Reads every byte of the files of a report, or says why not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from checkpointable.catalog import words
from checkpointable.catalog.info import CheckpointInfo, size_in_words
from checkpointable.catalog.verification import with_bar
from checkpointable.storage.paths import is_remote

MOST_BYTES = 1 << 31  # that are read without being asked to


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What was found in the bytes of files.

    Attributes:
        problems: What is wrong with each file that was read, by path; ``None`` if it is intact.
        finished: When, in seconds since the epoch of Unix time; ``None`` if nothing was read.
        why_not: Why nothing was read, as the end of a sentence.
    """

    problems: Mapping[str, str | None] = field(default_factory=dict)
    finished: float | None = None
    why_not: str = ""

    def in_words(self) -> str:
        """What was checked, in one sentence."""
        if self.finished is None:
            return f"Not checked: {self.why_not}."
        files = "every file" if len(self.problems) != 1 else "the file"
        return f"Checked: all bytes of {files} were read by {words.moment(self.finished)}."


def check(infos: Sequence[CheckpointInfo], *, verify: bool | None) -> Checks:
    """Read files to their ends, and find what is wrong with each. A bar shows how far that is, as in ``Checkpoints``.

    Args:
        infos: The files.
        verify: Whether to do so; ``None``: if they are local, and have 2 GiB or less in all.

    Raises:
        RemoteError: If a remote file system does not answer.
    """
    total = sum(info.size for info in infos)
    if verify is None and total > MOST_BYTES:
        return Checks(why_not=f"the files have {size_in_words(total)} in all, and no byte of their tensors was read")
    if verify is None and any(is_remote(info.path) for info in infos):
        return Checks(why_not="the files are remote, and no byte of their tensors was read")
    if verify is False:
        return Checks(why_not="no byte of the tensors was read, as asked for")
    problems = {info.path: info.verify() for info in with_bar(list(infos))}
    return Checks(problems=problems, finished=time.time())
