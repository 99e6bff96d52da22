"""A directory on a remote file system, at any URL that fsspec supports: ``s3://bucket/run``, ``gs://bucket/run`` ..."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TypeVar

from checkpointable._errors import RemoteError, SaveError
from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage.files import is_there, listed
from checkpointable.storage.paths import advice, filesystem, is_remote, normalize_path, parent, reason
from checkpointable.storage.store import Content, Store
from checkpointable.storage.unfinished_uploads import abort_abandoned
from checkpointable.storage.upload import difference, send
from checkpointable.storage.waiting import ask

T = TypeVar("T")

_MAX_PARTS = 10_000  # of one upload to S3
_RANDOM = secrets.SystemRandom()  # not the generators that training uses


@dataclass(eq=False)
class RemoteStore(Store):
    """A ``Store`` on a remote file system.

    A file is uploaded in parts, and becomes visible when the upload is completed. Then its size and checksum are
    compared, or all of its bytes where there is no checksum. An upload that fails is tried again after growing pauses.

    A killed process leaves the parts of its incomplete upload. They are invisible, but stored (and paid for). On S3,
    ``prepare`` aborts those of this directory that are over a day old; younger ones could belong to another process
    that is still writing. Elsewhere, rules of the bucket remove them.

    A file is never overwritten by a save: an upload that arrives damaged would have replaced it.

    Every wait has an end. A file system that does not answer for a minute is not waited for again until the next save,
    which then gets one try.

    Two runs can write into one directory. On S3, Google and Azure, a file that appears while another of that name is
    uploaded is kept. On other file systems, the name is only checked before the upload.

    It holds no open files: it can be copied, pickled, and used on any thread and after a fork.

    Args:
        directory: The URL.
        tries: How often an upload is tried.
        pause_seconds: The pause after the first try. It doubles each time, and varies randomly by half.
        part_size_bytes: Size of the parts of an upload. Sending a part takes about three times as much memory.
        timeout_seconds: How long sending a part, or completing the upload, may take.
        silence_seconds: After so long without an answer, no further try is made.
    """

    directory: str
    _: KW_ONLY
    tries: int = 4
    pause_seconds: float = 1.0
    part_size_bytes: int = 1 << 25
    timeout_seconds: float = 120.0
    silence_seconds: float = 60.0
    has_links = False
    has_directories = False
    overwrites_safely = False

    def __post_init__(self) -> None:
        assert is_remote(self.directory)
        self.directory = normalize_path(self.directory)
        self._answered_at = time.monotonic()
        self._was_silent = False

    def prepare(self, *, below: bool) -> None:
        """Check that files can be written, by writing and deleting a small one, and abort abandoned uploads.

        A missing bucket is not made.
        """
        probe = self.path(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.tmp")
        try:
            if self.exists(probe):
                raise RemoteError(
                    f"{probe} is said to be there, and nobody has written it: what answers for {self.directory} says"
                    " yes to everything. Check the endpoint and any proxy before it, or choose another dirpath."
                )
            files, path = filesystem(probe)
            if not files.async_impl:
                ask(probe, lambda: files.makedirs(files._parent(path), exist_ok=True))
            ask(probe, lambda: files.pipe_file(path, b"probe"))
            if not self.exists(probe):
                raise RemoteError(f"{probe} is missing after it was written. Choose another dirpath.")
            self.remove(probe)
            abort_abandoned(self.directory)
        except OSError as error:
            raise SaveError(f"cannot save checkpoints in {self.directory}: {_why(error)}") from error

    def path(self, name: str) -> str:
        """The URL of a file in the directory."""
        return f"{self.directory}/{name}"

    def contains(self, path: str) -> bool:
        """Whether a URL lies in the directory."""
        return path.startswith(f"{self.directory}/")

    def exists(self, path: str) -> bool:
        """Whether something is at that URL."""
        return is_there(path)

    def write(self, content: Content, path: str, *, overwrite: bool) -> None:
        """Upload a file, and check that it arrived intact."""
        self._trying(f"save {path}", lambda number: self._try(content, path, overwrite=overwrite, again=number > 1))

    def present(self, paths: Iterable[str]) -> Container[str]:
        """Tells which files are there: one listing, a request for each thousand names."""
        folders = {parent(path) for path in paths}
        return self._trying(
            f"list {self.directory}",
            lambda _: frozenset(listed(self.directory, below=folders != {self.directory}, seconds=None)),
        )

    def write_directory(self, fill: Callable[[Path], None], path: str) -> None:
        """Not possible: what other processes write has no way here."""
        raise NotImplementedError(f"{path}: no directory can be written at a URL")

    def link(self, link: str, target: str) -> None:
        """Refuse: object stores have no links, and a copy would be a second checkpoint."""
        raise NotImplementedError(f"{self.directory} has no links")

    def remove_broken_links(self, role: str) -> None:
        """Do nothing: there are none."""

    def remove(self, path: str) -> None:
        """Delete a file. If it is missing, do nothing."""
        files, place = filesystem(path)
        with contextlib.suppress(FileNotFoundError):
            ask(path, lambda: files.rm_file(place))

    def free_bytes(self) -> int | None:
        """``None``: remote file systems do not state it."""
        return None

    def _trying(self, what: str, attempt: Callable[[int], T]) -> T:
        """The result of ``attempt(number)``, tried again after growing pauses while the file system fails."""
        if not self._was_silent:
            self._note_answer()
        for number in itertools.count(1):
            try:
                result = attempt(number)
            except FileExistsError:
                raise
            except OSError as error:
                self._was_silent = time.monotonic() - self._answered_at >= self.silence_seconds
                if self._was_silent or number >= self.tries or isinstance(error, PermissionError):
                    tried = "one try" if number == 1 else f"{number} tries"
                    raise SaveError(f"cannot {what} ({tried}): {_why(error)}") from error
            else:
                self._was_silent = False
                return result
            time.sleep(self.pause_seconds * 2 ** (number - 1) * _RANDOM.uniform(0.5, 1.5))
        raise AssertionError("not reached")

    def _note_answer(self) -> None:
        self._answered_at = time.monotonic()

    def _try(self, content: Content, path: str, *, overwrite: bool, again: bool) -> None:
        part_size = max(self.part_size_bytes, -(-content.size // _MAX_PARTS))
        if again and self._holds(content, path, part_size):
            return  # the earlier try succeeded, and only the answer was lost
        if not overwrite and self.exists(path):
            raise FileExistsError(f"{path} exists already")
        try:
            send(
                content,
                path,
                exclusive=not overwrite,
                part_size_bytes=part_size,
                timeout_seconds=self.timeout_seconds,
                answered=self._note_answer,
            )
        except FileExistsError:
            if not self._holds(content, path, part_size):  # s3fs completes again if the answer was lost
                raise
            return
        wrong = difference(content, path, part_size_bytes=part_size)
        if wrong is not None:
            self.remove(path)
            raise RemoteError(
                f"the uploaded file differs from what was sent: {wrong}. It was deleted. Save somewhere else."
            )

    def _holds(self, content: Content, path: str, part_size: int) -> bool:
        try:
            return difference(content, path, part_size_bytes=part_size) is None
        except FileNotFoundError:
            return False


def _why(error: OSError) -> str:
    """The message of the file system, and what the user can do."""
    cause = error.__cause__ if isinstance(error, (RemoteError, PermissionError)) else error
    return str(error) if cause is None or isinstance(cause, ImportError) else f"{reason(cause)}. {advice(cause)}"
