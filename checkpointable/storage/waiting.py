"""Waits for remote file systems, each for a bounded time."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from checkpointable._errors import RemoteError
from checkpointable.storage.paths import advice, reaching
from checkpointable.storage.writer import run_in_thread

T = TypeVar("T")

ANSWER_SECONDS = 60.0  # for a question, or a few megabytes


def ask(url: str, call: Callable[[], T], *, seconds: float | None = None) -> T:
    """The result of a call to the file system of a URL; see ``reaching`` for what it raises.

    Raises:
        RemoteError: Also if there is no answer within the time, ``ANSWER_SECONDS`` by default.
    """
    try:
        with reaching(url):
            return within(ANSWER_SECONDS if seconds is None else seconds, call)
    except TimeoutError as error:
        raise RemoteError(f"cannot reach {url}: {error}. {advice(error)}") from error


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of a call. It runs on its own thread, which is abandoned with ``TimeoutError`` at the end of the time.

    Its package's own timeouts are not enough: those of aiohttp, and of what is built on it, begin when a request is
    sent, so that it hangs forever if the server stops reading.
    """
    result: Future[T] = Future()
    run_in_thread(call, result, name="checkpointable-remote")
    concurrent.futures.wait([result], seconds)
    if not result.done():
        raise TimeoutError(f"no answer for {seconds:g} s")
    return result.result()
