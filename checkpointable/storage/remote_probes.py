"""Tries out what a remote file system does with a file of its own name, which is deleted at the end.

Every answer is waited for, for a limited time. The first one that does not come ends the attempt.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from checkpointable._errors import RemoteError
from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage import files
from checkpointable.storage.findings import Finding, Outcome
from checkpointable.storage.paths import advice, filesystem, reaching, reason
from checkpointable.storage.upload import difference, send
from checkpointable.storage.writer import run_in_thread

T = TypeVar("T")

ANSWER_SECONDS = 30.0
_TRIPS = 3
_PART_BYTES = 5 << 20  # the least that S3 takes as a part that is not the last
_ANSWERS = 6  # that an upload of two parts waits for
_LIST = "Give its credentials the right to list there (S3: s3:ListBucket), or choose another dirpath."
_GRANT = "Give its credentials the right to list, read, write and delete there, or choose another dirpath."


@dataclass(frozen=True)
class Bytes:
    """The content of a small file."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def pieces(self) -> Iterator[memoryview]:
        """All of them at once."""
        yield memoryview(self.data)

    def problem_in(self, file: BinaryIO) -> str | None:
        """Whether it holds anything else."""
        return None if file.read() == self.data else "it holds other bytes"


class UnansweredError(Exception):
    """The store does not answer: nothing more can be found out. The message says what to do."""


class RemoteProbe:
    """Asks one store.

    Args:
        url: A directory; on a file system that has directories, one that exists.
        answer_seconds: How long each answer may take.

    Attributes:
        is_answering: Whether all answers have come so far.
    """

    def __init__(self, url: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.is_answering = True
        self._url = url
        self._answer_seconds = answer_seconds
        self._file = f"{url}/{TEMPORARY_PREFIX}{secrets.token_hex(8)}.tmp"
        self._has_written = False

    def findings(self) -> list[Finding]:
        """What it can do. Nothing is left behind, also after an exception."""
        found: list[Finding] = []
        try:
            found.append(self._finding("answer", self._answer, 1, _LIST))
            found.append(self._finding("listing", self._list, 1, _LIST))
            self._has_written = True
            found.append(self._finding("small file", self._write, 1, _GRANT))
            found.append(self._finding("upload", self._upload, _ANSWERS, _GRANT))
            found.append(self._finding("taken name", self._take, _ANSWERS, _GRANT))
            found.append(self._finding("deleting", self._delete, 1, _GRANT))
        except UnansweredError as error:
            found.append(Finding("answer", Outcome.PROBLEM, *error.args))
        finally:
            left = self._leave_nothing() if self._has_written else None
        return found if left is None else [*found, left]

    def ask(self, call: Callable[[], T], answers: int = 1) -> T:
        """The result of a call that waits for so many answers; ``UnansweredError`` if it does not come in time."""
        seconds, answer = answers * self._answer_seconds, Future[T]()
        run_in_thread(call, answer, name="checkpointable-probe")
        try:
            concurrent.futures.wait([answer], seconds)
        except BaseException:  # Ctrl-C
            concurrent.futures.wait([answer], seconds)  # so that what it makes is there to be deleted
            raise
        with contextlib.suppress(TimeoutError):
            if answer.done():
                return answer.result()
        self.is_answering = False
        raise UnansweredError(f"no answer for {seconds:g} s.", advice(TimeoutError()))

    def _finding(self, what: str, probe: Callable[[], Finding | str], answers: int, cure: str) -> Finding:
        try:
            seen = self.ask(probe, answers)
        except PermissionError as error:
            return Finding(what, Outcome.PROBLEM, f"{reason(error.__cause__ or error)}.", cure)
        except RemoteError as error:
            if what == "answer":
                self.is_answering = False
                raise UnansweredError(*apart(error)) from error
            return Finding(what, Outcome.PROBLEM, *apart(error))
        except FileNotFoundError as error:
            return Finding(what, Outcome.PROBLEM, f"{reason(error)}.", advice(error))
        except OSError as error:  # not as it should be
            return Finding(what, Outcome.PROBLEM, str(error), "Choose another dirpath.")
        return Finding(what, Outcome.OK, seen) if isinstance(seen, str) else seen

    def _answer(self) -> str:
        seconds = []
        for _ in range(_TRIPS):
            begun = time.perf_counter()
            if files.is_there(f"{self._file}-{secrets.token_hex(8)}"):
                raise OSError("a name that nobody has made is said to be there: no free name would be found.")
            seconds.append(time.perf_counter() - begun)
        return f"a name that nobody has made is said not to be there, after {min(seconds) * 1000:.1f} ms."

    def _list(self) -> str:
        return f"{len(files.listed(self._url, below=False))} files in the directory itself."

    def _write(self) -> str:
        data = secrets.token_bytes(1 << 10)
        store, path = filesystem(self._file)
        with reaching(self._file):
            store.pipe_file(path, data)
        if not files.is_there(self._file) or files.read_bytes(self._file) != data:
            raise OSError("other bytes are read than were written.")
        return "written and read back."

    def _send(self, content: Bytes, *, exclusive: bool) -> None:
        send(
            content,
            self._file,
            exclusive=exclusive,
            part_size_bytes=_PART_BYTES,
            timeout_seconds=self._answer_seconds,
        )

    def _upload(self) -> str:
        content = Bytes(secrets.token_bytes(_PART_BYTES + 1))
        self._send(content, exclusive=False)
        wrong = difference(content, self._file, part_size_bytes=_PART_BYTES)
        if wrong is not None:
            raise OSError(f"{wrong}.")
        if filesystem(self._file)[0].async_impl:
            return "two parts were uploaded, completed and compared."
        return "5 MiB were uploaded under a temporary name, renamed and compared."

    def _take(self) -> Finding | str:
        try:
            self._send(Bytes(b"2"), exclusive=True)
        except FileExistsError:
            return "an upload to a name that another file has is refused, so no run replaces a file of another."
        return Finding(
            "taken name",
            Outcome.WARNING,
            "an upload replaces a file that has its name: a name is looked up before it is taken, so of two runs that"
            " take it at the same moment, one may lose its file.",
            "Give each run a dirpath of its own.",
        )

    def _delete(self) -> str:
        self._remove()
        if files.is_there(self._file):
            raise OSError("a file is there after it was deleted.")
        return "a deleted file is gone."

    def _remove(self) -> None:
        store, path = filesystem(self._file)
        with reaching(self._file), contextlib.suppress(FileNotFoundError):
            store.rm_file(path)

    def _leave_nothing(self) -> Finding | None:
        """Delete the file if it is there. A finding if that is not known."""
        try:
            self.ask(self._delete, 2)
        except UnansweredError as error:
            why = str(error.args[0])
        except OSError as error:
            why = str(error)
        else:
            return None
        return Finding("deleting", Outcome.UNKNOWN, f"whether {self._file} is gone: {why}", "Delete it by hand.")


def apart(error: UnansweredError | OSError) -> tuple[str, str]:
    """What is wrong with a store, and what to do about it."""
    if isinstance(error, UnansweredError):
        detail, cure = error.args
        return detail, cure
    cause = error.__cause__
    return (str(error), "") if cause is None else (f"{reason(cause)}.", advice(cause))
