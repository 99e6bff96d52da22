"""The one thread that writes in the background: one save at a time, waited for when it has to be.

The thread lives as long as its save, and the interpreter waits for it at exit. A forked process has none, and a copy of
a writer is a new one, so loader workers and deep copies of a module are not touched by a save that is under way.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Writer(Generic[T]):
    """Does one piece of work in the background, and keeps what came of it.

    Attributes:
        last_seconds: How long the last one took; infinite before the first.
    """

    def __init__(self) -> None:
        self.last_seconds = float("inf")
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        self._process = 0
        self._result: T | None = None
        self._failure: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work is under way."""
        return self._thread is not None and not self._done.is_set() and self._process == os.getpid()

    def start(self, work: Callable[[], T], *, background: bool) -> None:
        """Begin. What an interrupted caller has left is waited for, and what came of it is dropped.

        Args:
            work: What to do.
            background: Whether to return at once.

        Raises:
            BaseException: What the work that was left raised. Nothing has begun then.
        """
        if self._thread is not None:
            self.take()
        self._done = done = threading.Event()
        self._process = os.getpid()
        self._thread = thread = threading.Thread(target=self._do, args=(work, done), name="checkpointable-writer")
        if not background:
            thread.run()
            return
        try:
            thread.start()
        except RuntimeError:  # no more threads, as at the end of the interpreter
            thread.run()
        except BaseException:  # Ctrl-C
            if thread.ident is None:  # it has not begun, so there is nothing to wait for
                self._thread, self._done = None, threading.Event()
            raise

    def wait(self, seconds: float | None = None) -> None:
        """Until the work is done, or so many seconds."""
        if self.is_busy:
            self._done.wait(seconds)  # not join: interrupted by Ctrl-C, it takes the thread for ended (Python < 3.13)

    def take(self) -> T | None:
        """What came of the work, once; ``None`` if none was done.

        Raises:
            BaseException: What the work raised.
        """
        if self._thread is None:
            return None
        self.wait()
        result, failure = self._result, self._failure
        self._thread = self._result = self._failure = None
        if failure is not None:
            raise failure
        return result

    def _do(self, work: Callable[[], T], done: threading.Event) -> None:
        if done is not self._done:
            return  # given up while this thread was being started; by now other work may be under way
        begun = time.monotonic()
        try:
            self._result = work()
        except BaseException as failure:  # noqa: BLE001  # whatever it is, it is raised where it is taken
            self._failure = failure
        finally:
            self.last_seconds = time.monotonic() - begun
            done.set()

    def __deepcopy__(self, memo: dict[int, object]) -> Writer[T]:
        return type(self)()

    def __reduce__(self) -> tuple[type[Writer[T]], tuple[()]]:
        return (type(self), ())
