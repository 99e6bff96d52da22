"""Puts a time limit on a call that may never return."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of a call. It runs on its own thread, which is abandoned if the call does not return in time.

    Uploads need this: aiohttp, and what is built on it, hangs forever if the server stops reading, as its own timeouts
    begin when a request is sent.

    Raises:
        TimeoutError: If the call did not return in time.
        BaseException: What the call raised.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as failure:  # noqa: BLE001  # any exception is raised again in the calling thread
            failures.append(failure)

    thread = threading.Thread(target=work, name="checkpointable-upload", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread can be started, for example while the interpreter exits
        work()
    else:
        thread.join(seconds)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError(f"no answer for {seconds:g} s")
    return results[0]
