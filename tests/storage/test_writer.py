"""The thread that writes: one piece of work at a time, and its result is taken once."""

from __future__ import annotations

import atexit
import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable

import pytest

from checkpointable.storage import writer
from checkpointable.storage.writer import Writer


class Gate:
    """Work that waits until it is let through."""

    def __init__(self, result: str = "done") -> None:
        self.result = result
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.thread = ""

    def __call__(self) -> str:
        self.thread = threading.current_thread().name
        self.entered.set()
        assert self.opened.wait(60)
        return self.result


@pytest.fixture
def gate():
    work = Gate()
    yield work
    work.opened.set()


def fail(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_work_in_the_background_runs_beside_the_caller(gate):
    writer = Writer()
    writer.start(gate, background=True)
    assert gate.entered.wait(60)
    assert writer.is_busy
    assert gate.thread == "checkpointable-writer"
    gate.opened.set()
    assert writer.take() == "done"
    assert not writer.is_busy


def test_work_in_the_foreground_is_done_on_return():
    writer, done = Writer(), []
    writer.start(lambda: done.append(threading.current_thread()), background=False)
    assert done == [threading.current_thread()]
    assert not writer.is_busy


def test_result_is_taken_once():
    writer = Writer()
    writer.start(lambda: "done", background=True)
    assert writer.take() == "done"
    assert writer.take() is None


def test_take_before_any_work_is_nothing():
    assert Writer().take() is None
    assert not Writer().is_busy
    Writer().wait()


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(28, "full"), KeyboardInterrupt(), SystemExit(3)])
def test_failure_is_raised_where_it_is_taken_and_once(error, background):
    writer = Writer()
    writer.start(fail(error), background=background)
    with pytest.raises(type(error)) as caught:
        writer.take()
    assert caught.value is error
    assert writer.take() is None
    writer.start(lambda: "next", background=background)
    assert writer.take() == "next"


def test_works_come_in_the_order_in_which_they_were_started():
    writer, seen = Writer(), []
    for number in range(20):
        writer.start(lambda number=number: seen.append(number), background=number % 3 != 0)
        writer.take()
    assert seen == list(range(20))


def test_start_after_an_interrupted_caller_waits_for_what_it_left_and_drops_that():
    writer, seen = Writer(), []
    first_began = threading.Event()

    def first() -> str:
        assert first_began.wait(60)
        seen.append("first")
        return "first"

    writer.start(first, background=True)
    threading.Timer(0.05, first_began.set).start()
    writer.start(lambda: seen.append("second") or "second", background=True)
    assert writer.take() == "second"
    assert seen == ["first", "second"]
    assert writer.take() is None


def test_start_after_work_that_failed_and_was_left_raises_and_begins_nothing():
    writer, seen = Writer(), []
    writer.start(fail(ValueError("a bug")), background=True)
    with pytest.raises(ValueError, match="a bug"):
        writer.start(lambda: seen.append("second"), background=True)
    assert (seen, writer.take()) == ([], None)
    writer.start(lambda: "third", background=True)
    assert writer.take() == "third"


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C while the next thread is being started, before it begins or after; gives how it can be started later."""

    def prepare(after: threading.Event | None = None) -> list[Callable[[], None]]:
        start, late = threading.Thread.start, []

        def interrupting(thread):
            monkeypatch.undo()
            if after is None:
                late.append(lambda: (start(thread), thread.join()))
            else:
                start(thread)
                assert after.wait(60)
            raise KeyboardInterrupt

        monkeypatch.setattr(threading.Thread, "start", interrupting)
        return late

    return prepare


def test_ctrl_c_before_the_thread_begins_leaves_nothing_under_way(interrupted):
    writer, seen = Writer(), []
    late = interrupted()
    with pytest.raises(KeyboardInterrupt):
        writer.start(lambda: seen.append("first"), background=True)
    assert not writer.is_busy
    assert (writer.take(), seen) == (None, [])
    writer.start(lambda: seen.append("second"), background=True)
    late[0]()
    writer.take()
    assert seen == ["second"], "one that begins after all does nothing"


def test_ctrl_c_before_the_thread_begins_frees_what_the_work_holds(interrupted):
    class Held:
        pass

    writer, held = Writer(), Held()
    freed = weakref.ref(held)
    interrupted().clear()
    with pytest.raises(KeyboardInterrupt):
        writer.start(lambda held=held: None, background=True)
    del held
    gc.collect()
    assert freed() is None


def test_ctrl_c_while_a_save_is_being_started_leaves_nothing_that_is_waited_for(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    writer = Writer()
    monkeypatch.setattr(atexit, "register", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.start(lambda: "first", background=True)
    monkeypatch.undo()
    assert writer.take() is None
    writer.start(lambda: "second", background=True)
    assert writer.take() == "second"


def test_ctrl_c_after_the_thread_has_begun_leaves_its_result(interrupted, gate):
    writer = Writer()
    interrupted(after=gate.entered)
    with pytest.raises(KeyboardInterrupt):
        writer.start(gate, background=True)
    assert writer.is_busy
    gate.opened.set()
    assert writer.take() == "done"


def test_wait_for_a_while_returns_though_work_is_running(gate):
    writer = Writer()
    writer.start(gate, background=True)
    writer.wait(0.01)
    assert writer.is_busy
    gate.opened.set()
    writer.wait()
    assert not writer.is_busy
    assert writer.take() == "done"


def test_seconds_of_the_last_work_are_known_once_it_is_done(gate):
    writer = Writer()
    assert writer.last_seconds == float("inf")
    writer.start(gate, background=True)
    assert writer.last_seconds == float("inf")
    gate.opened.set()
    writer.take()
    assert 0 <= writer.last_seconds < float("inf")
    writer.last_seconds = float("inf")
    writer.start(fail(ValueError("a bug")), background=True)
    with pytest.raises(ValueError, match="a bug"):
        writer.take()
    assert writer.last_seconds < float("inf")


def test_work_is_done_in_the_foreground_where_no_thread_can_start(monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "_start_new_thread", refuse)
    writer, done = Writer(), []
    writer.start(lambda: done.append(threading.current_thread()) or "done", background=True)
    assert done == [threading.current_thread()]
    assert not writer.is_busy
    assert writer.take() == "done"


@pytest.mark.parametrize("way", [copy.deepcopy, copy.copy, lambda writer: pickle.loads(pickle.dumps(writer))])
def test_copy_is_a_new_one_that_has_nothing_under_way(gate, way):
    writer = Writer()
    writer.start(gate, background=True)
    other = way(writer)
    assert not other.is_busy
    other.start(lambda: "other", background=True)
    assert other.take() == "other"
    assert writer.is_busy
    gate.opened.set()
    assert writer.take() == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_fork_while_work_is_under_way_has_none_and_does_not_hang(gate):
    writer = Writer()
    writer.start(gate, background=True)
    assert gate.entered.wait(60)
    child = os.fork()
    if child == 0:  # nothing but os._exit may end this process: it is a copy of pytest
        status = 1
        try:
            writer.wait()
            status = 2 if writer.is_busy else 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert writer.is_busy
    gate.opened.set()
    assert writer.take() == "done"


@pytest.mark.parametrize("abandoned", [False, True])
def test_interpreter_waits_for_the_work_unless_it_is_abandoned(tmp_path, abandoned):
    script = f"""
import runpy, threading, time
from pathlib import Path

Writer = runpy.run_path({writer.__file__!r})["Writer"]  # alone: importing the package takes seconds

begun = threading.Event()

def work():
    begun.set()
    time.sleep({600 if abandoned else 1})
    Path({str(tmp_path / "done")!r}).touch()

writer = Writer()
writer.start(work, background=True)
begun.wait()
{"writer.abandon()" if abandoned else ""}
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "done").exists() != abandoned


def test_interpreter_waits_until_all_that_the_work_held_is_freed(tmp_path):
    script = f"""
import runpy, threading, time
from pathlib import Path

Writer = runpy.run_path({writer.__file__!r})["Writer"]  # alone: importing the package takes seconds

class Tensor:
    def __del__(self):
        time.sleep(1)
        Path({str(tmp_path / "freed")!r}).touch()

begun = threading.Event()
writer = Writer()
writer.start(lambda held=Tensor(): begun.wait(), background=True)
begun.set()
assert writer.take()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "freed").exists()
