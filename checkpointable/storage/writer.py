"""The background thread that writes: one save at a time.

The thread lives as long as its save, and the interpreter waits for it at exit. A forked process has no such thread, and
a copy of a writer is idle. So a running save does not affect loader workers and deep copies of a module.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class Writer(Generic[T]):
    """Runs one piece of work in the background, and keeps its result.

    Attributes:
        last_seconds: How long the last work took; infinite before the first.
    """

    last_seconds: float = math.inf
    _thread: threading.Thread | None = None
    _done: threading.Event = field(default_factory=threading.Event)
    _process: int = 0
    _result: T | None = None
    _failure: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work is running."""
        return self._thread is not None and not self._done.is_set() and self._process == os.getpid()

    def start(self, work: Callable[[], T], *, background: bool) -> None:
        """Start work. If an interrupted caller left earlier work, wait for it first, and drop its result.

        Args:
            work: What to do.
            background: Whether to return at once.

        Raises:
            BaseException: What the earlier work raised. Nothing was started then.
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
        except RuntimeError:  # no thread can be started, for example while the interpreter exits
            thread.run()
        except BaseException:  # Ctrl-C
            if thread.ident is None:  # the thread has not started, so there is nothing to wait for
                self._thread, self._done = None, threading.Event()
            raise

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the work is done, at most ``seconds``."""
        if self.is_busy:
            self._done.wait(seconds)  # not join: after Ctrl-C it considers the thread ended (Python < 3.13)

    def take(self) -> T | None:
        """Wait for the work, and return its result once; ``None`` if there was no work.

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
            return  # abandoned while this thread was starting; other work may be running by now
        begun = time.monotonic()
        try:
            self._result = work()
        except BaseException as failure:  # noqa: BLE001  # any exception is raised again by ``take``
            self._failure = failure
        finally:
            self.last_seconds = time.monotonic() - begun
            done.set()

    def __deepcopy__(self, memo: dict[int, object]) -> Writer[T]:
        return type(self)()

    def __reduce__(self) -> tuple[type[Writer[T]], tuple[()]]:
        return (type(self), ())
