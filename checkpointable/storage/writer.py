"""The background thread that writes: one save at a time.

The thread lives as long as its save, and the interpreter waits for it at exit, unless the save is abandoned. A forked
process has no such thread, and a copy of a writer is idle. So a running save does not affect loader workers and deep
copies of a module.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_AWAITED: set[threading.Thread] = set()  # at exit
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_AWAITED.clear)


@dataclass(eq=False)
class Writer(Generic[T]):
    """Runs one piece of work in the background, and keeps its result.

    Attributes:
        last_seconds: How long the last work took; infinite before the first.
    """

    last_seconds: float = math.inf
    _result: Future[T] | None = None
    _process: int = 0
    _thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work is running."""
        return self._result is not None and self._process == os.getpid() and not self._result.done()

    def start(self, work: Callable[[], T], *, background: bool) -> None:
        """Start work, and return at once if it runs in the background.

        If an interrupted caller left earlier work, wait for it first, and drop its result. What that work raised is
        raised here, and nothing is started.
        """
        if self._result is not None:
            self.take()
        self._process = os.getpid()
        result: Future[T] = Future()
        if not background:
            self._result = result
            _run(partial(self._timed, work), result)
            return
        thread = _new_thread(partial(self._timed, work), result, name="checkpointable-writer")
        try:
            self._result, self._thread = result, thread
            _AWAITED.difference_update([thread for thread in tuple(_AWAITED) if not thread.is_alive()])
            _AWAITED.add(thread)
            atexit.unregister(_wait_at_exit)
            atexit.register(_wait_at_exit)  # the latest is called first, while all that the work needs is still there
            _start(thread, result)
        except BaseException:  # Ctrl-C
            if thread.ident is None:
                result.cancel()
                self.abandon()
                self._thread = None  # it holds what the work does
            raise

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the work is done, at most ``seconds``."""
        if self._result is not None and self.is_busy:
            concurrent.futures.wait([self._result], seconds)

    def abandon(self) -> None:
        """Let the interpreter end in the middle of the work."""
        if self._thread is not None:
            _AWAITED.discard(self._thread)

    def take(self) -> T | None:
        """Wait for the work, and return its result, or raise what it raised, once; ``None`` if there was no work."""
        self.wait()
        result, self._result = self._result, None
        if result is None or self._process != os.getpid() or result.cancelled():
            return None
        return result.result()

    def _timed(self, work: Callable[[], T]) -> T:
        begun = time.monotonic()
        try:
            return work()
        finally:
            self.last_seconds = time.monotonic() - begun

    def __reduce__(self) -> tuple[type[Writer[T]], tuple[()]]:
        return (type(self), ())


def _wait_at_exit() -> None:
    for thread in [thread for thread in tuple(_AWAITED) if thread.ident is not None]:
        thread.join()  # a result is not enough: where the interpreter ends while tensors are freed, C++ aborts


def run_in_thread(work: Callable[[], T], result: Future[T], *, name: str) -> None:
    """Do work on a new thread, or at once where none can be started, as while the interpreter exits."""
    _start(_new_thread(work, result, name=name), result)


def _new_thread(work: Callable[[], T], result: Future[T], *, name: str) -> threading.Thread:
    return threading.Thread(target=_run, args=(work, result), name=name, daemon=True)


def _start(thread: threading.Thread, result: Future[Any]) -> None:
    try:
        thread.start()
    except RuntimeError:
        thread.run()
    except BaseException:  # Ctrl-C
        if thread.ident is None:  # the thread has not started, so there is nothing to wait for
            result.cancel()
        raise


def _run(work: Callable[[], T], result: Future[T]) -> None:
    if not result.set_running_or_notify_cancel():
        return  # abandoned while this thread was starting; other work may be running by now
    try:
        value = work()
    except BaseException as failure:  # noqa: BLE001  # any exception is raised again where the result is taken
        result.set_exception(failure)
        del result  # its exception holds this frame
    else:
        result.set_result(value)
