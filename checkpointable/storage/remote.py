"""A directory of a remote file system, at any URL that fsspec knows: ``s3://bucket/run``, ``gs://bucket/run``, ..."""

from __future__ import annotations

import itertools
import secrets
import time
from typing import Any

from checkpointable._errors import RemoteError, SaveError
from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage.files import is_there
from checkpointable.storage.format import archive
from checkpointable.storage.paths import advice, filesystem, is_remote, normalize_path, reaching, reason
from checkpointable.storage.store import Content
from checkpointable.storage.upload import difference, send

_MOST_PARTS = 10_000  # of one upload to S3
_CHANCE = secrets.SystemRandom()  # not the generators that training uses


class RemoteStore:
    """A ``Store`` on a remote file system. See there for its methods.

    A file is uploaded in parts, and becomes visible when the upload is completed; then its size and checksum are
    compared, or all of its bytes where there is no checksum. A try that fails is repeated, with growing pauses.

    A process that is killed leaves the parts of an upload that was not completed. Nobody sees them, but they are stored
    (and paid for) until a rule of the bucket removes them, on S3 ``AbortIncompleteMultipartUpload``. They are not swept
    here: nothing tells whether another process is still writing them.

    Where two runs write into one directory, a file that appears while another of that name is being uploaded is kept on
    S3, Google and Azure; other file systems are only asked before.

    It holds nothing that is open: it can be copied, pickled, used on any thread and after a fork.

    Args:
        directory: The URL.
        tries: How often an upload is tried.
        pause_seconds: The pause after the first try; it doubles each time, and is shortened or prolonged by chance.
        part_size_bytes: Size of the parts of an upload. About three times as much memory is used while one is sent.
        timeout_seconds: How long sending a part, or completing the upload, may take.
    """

    has_links = False

    def __init__(
        self,
        directory: str,
        *,
        tries: int = 4,
        pause_seconds: float = 1.0,
        part_size_bytes: int = 1 << 25,
        timeout_seconds: float = 300.0,
    ) -> None:
        assert is_remote(directory)
        self.directory = normalize_path(directory)
        self.tries = tries
        self.pause_seconds = pause_seconds
        self.part_size_bytes = part_size_bytes
        self.timeout_seconds = timeout_seconds

    def prepare(self, *, below: bool) -> None:
        """Show that it can be written, by a small object that is made and deleted. A missing bucket is not made."""
        probe = self.path(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.tmp")
        try:
            self.exists(probe)
            files, path = filesystem(probe)
            with reaching(probe):
                if not files.async_impl:
                    files.makedirs(files._parent(path), exist_ok=True)
                files.pipe_file(path, b"probe")
            if not self.exists(probe):
                raise RemoteError(f"{probe} was written, and is not there. Choose another dirpath.")
            self.remove(probe)
        except OSError as error:
            raise SaveError(f"cannot save checkpoints in {self.directory}: {_why(error)}") from error

    def path(self, name: str) -> str:
        """The URL of a file in it."""
        return f"{self.directory}/{name}"

    def contains(self, path: str) -> bool:
        """Whether a URL lies in it."""
        return path.startswith(f"{self.directory}/")

    def exists(self, path: str) -> bool:
        """Whether there is something at that URL."""
        return is_there(path)

    def write(self, content: Content, path: str, *, overwrite: bool) -> None:
        """Upload a file, and check what has arrived."""
        for number in itertools.count(1):
            try:
                return self._try(content, path, overwrite=overwrite, again=number > 1)
            except FileExistsError:
                raise
            except OSError as error:
                if number >= self.tries or isinstance(error, PermissionError):
                    tried = "one try" if number == 1 else f"{number} tries"
                    raise SaveError(f"cannot save {path} ({tried}): {_why(error)}") from error
            time.sleep(self.pause_seconds * 2 ** (number - 1) * _CHANCE.uniform(0.5, 1.5))
        raise AssertionError("unreachable: numbers do not end")

    def link(self, link: str, target: str) -> None:
        """Refuse: object stores have no links, and a copy would be a second checkpoint."""
        raise NotImplementedError(f"{self.directory} has no links")

    def remove_broken_links(self, role: str) -> None:
        """Do nothing: there are none."""

    def remove(self, path: str) -> None:
        """Delete a file."""
        files, place = filesystem(path)
        with reaching(path):
            try:
                files.rm_file(place)
            except FileNotFoundError:
                return

    def metadata(self, path: str) -> dict[str, Any]:
        """What a file tells about itself; its end is all that is fetched."""
        return archive.read_metadata(path)

    def problem(self, path: str) -> str | None:
        """What is wrong with a file's bytes."""
        return archive.problem(path)

    def free_bytes(self) -> int | None:
        """Nobody can tell."""
        return None

    def _try(self, content: Content, path: str, *, overwrite: bool, again: bool) -> None:
        part_size = max(self.part_size_bytes, -(-content.size // _MOST_PARTS))
        if again and self._holds(content, path, part_size):
            return  # it had got through; only the answer was lost
        if not overwrite and self.exists(path):
            raise FileExistsError(f"{path} is there already")
        try:
            send(
                content,
                path,
                exclusive=not overwrite,
                part_size_bytes=part_size,
                timeout_seconds=self.timeout_seconds,
            )
        except FileExistsError:
            if not self._holds(content, path, part_size):  # s3fs completes once more where the answer was lost
                raise
            return
        wrong = difference(content, path, part_size_bytes=part_size)
        if wrong is not None:
            self.remove(path)
            raise RemoteError(f"what has arrived is not what was sent: {wrong}. It was deleted; save somewhere else.")

    def _holds(self, content: Content, path: str, part_size: int) -> bool:
        try:
            return difference(content, path, part_size_bytes=part_size) is None
        except FileNotFoundError:
            return False


def _why(error: OSError) -> str:
    """What the file system said, and what to do."""
    said = error.__cause__ if isinstance(error, (RemoteError, PermissionError)) else error
    return str(error) if said is None or isinstance(said, ImportError) else f"{reason(said)}. {advice(said)}"
