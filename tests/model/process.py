"""Processes that live in this one: each can be killed at any of its calls that reach the disk.

Once killed, no call of such a process reaches the disk any more: neither ``finally`` nor another thread cleans up after
it. What the system does for a real one, the end of its locks, happens as its files are closed.
"""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from checkpointable.storage import commit, direct
from checkpointable.storage.local import LocalStore

CALLS = ("open", "write", "writev", "ftruncate", "fsync", "link", "replace", "symlink", "unlink", "mkdir", "rmdir")
STORE_CALLS = ("exists", "write", "link", "remove", "remove_broken_links", "problem", "free_bytes")
_NUMBERS = itertools.count(1 << 23)  # above those that a system gives
_running: list[Process] = []


class Killed(BaseException):
    """The end of a process. Nothing in the library catches it."""


class Process:
    """One that is not dead, until it is killed.

    Attributes:
        number: As the system would give it.
        calls: How many it has made since it was last told to strike.
        living: The numbers of those that live.
    """

    living: set[int] = set()

    def __init__(self) -> None:
        self.number = next(_NUMBERS)
        self.is_dead = False
        self.calls = 0
        self._at: int | None = None
        self._strike: Callable[[], None] = self.kill
        self._in_use: set[str] = set()  # temporary files
        self.living.add(self.number)

    def strike(self, at: int | None, strike: Callable[[], None] | None = None) -> None:
        """Have something happen before the ``at``-th call from now on; it is killed if nothing else is given."""
        self.calls, self._at, self._strike = 0, at, strike or self.kill

    def kill(self) -> None:
        """End it at once."""
        self.end()
        raise Killed

    def end(self) -> None:
        """End it between two calls."""
        self.is_dead = True
        self.living.discard(self.number)

    def count(self) -> bool:
        """Count a call; whether it is the one at which it is killed."""
        if self.is_dead:
            raise Killed
        self.calls += 1
        if self.calls == self._at:
            self._at = None
            if self._strike == self.kill:
                return True
            self._strike()
        return False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """What is called in the block is called by this process."""
        before, commit._IN_USE = commit._IN_USE, self._in_use
        _running.append(self)
        try:
            yield
        finally:
            _running.pop()
            commit._IN_USE = before


class OneThread:
    """Writes on the thread that asks, so that a history has one order, and takes less time."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> OneThread:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    submit = staticmethod(direct._at_once)


@contextlib.contextmanager
def simulated(free_bytes: Callable[[str], int | None]) -> Iterator[None]:
    """Let processes run in this one. ``free_bytes`` is the room on the disk of a path; ``None`` for what there is."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, _counted(getattr(os, name), name))
        for name in STORE_CALLS:
            patch.setattr(LocalStore, name, _counted(getattr(LocalStore, name), "a call of the store"))
        for module in (builtins, io):
            patch.setattr(module, "open", _counted(open, "open a file"))
        patch.setattr(fcntl, "flock", _counted(fcntl.flock, "lock"))
        patch.setattr(direct, "ThreadPoolExecutor", OneThread)
        patch.setattr(os, "getpid", _number(os.getpid))
        patch.setattr(os, "kill", _is_alive(os.kill))
        patch.setattr(shutil, "disk_usage", _usage(shutil.disk_usage, free_bytes))
        yield


def _counted(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        if not _running or (name.startswith("open") and not _writes(args, kwargs)):
            return call(*args, **kwargs)
        if _running[-1].count():
            if name == "write":
                call(args[0], args[1][: len(args[1]) // 2])
            elif name == "writev":
                call(args[0], [args[1][0], args[1][1][: len(args[1][1]) // 2]])
            _running[-1].kill()
        return call(*args, **kwargs)

    return counted


def _writes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    how = args[1] if len(args) > 1 else kwargs.get("mode", "r")
    return bool(how & (os.O_WRONLY | os.O_RDWR)) if isinstance(how, int) else not {*"wax+"}.isdisjoint(how)


def _number(real: Callable[[], int]) -> Callable[[], int]:
    return lambda: _running[-1].number if _running else real()


def _is_alive(real: Callable[[int, int], None]) -> Callable[[int, int], None]:
    def kill(number: int, signal: int) -> None:
        if number < 1 << 23 or signal:
            return real(number, signal)
        if number not in Process.living:
            raise ProcessLookupError
        return None

    return kill


def _usage(real: Callable[[Any], Any], free_bytes: Callable[[str], int | None]) -> Callable[[Any], Any]:
    def usage(path: Any) -> Any:
        free, found = free_bytes(os.fspath(path)), real(path)
        return found if free is None else found._replace(free=max(free, 0))

    return usage
