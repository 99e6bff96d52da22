"""A call that may never come back is waited for so long, and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call gives. It is made on a thread of its own, which is left to itself if it does not come back.

    For uploads: a server that has stopped to read holds aiohttp, and what is built on it, for ever. Its timeouts begin
    when a request is sent.

    Raises:
        TimeoutError: If it did not come back in time.
        BaseException: What it raised.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as failure:  # noqa: BLE001  # whatever it is, it is raised where it is waited for
            failures.append(failure)

    thread = threading.Thread(target=work, name="checkpointable-upload", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads, as at the end of the interpreter
        work()
    else:
        thread.join(seconds)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError(f"no answer for {seconds:g} s")
    return results[0]
