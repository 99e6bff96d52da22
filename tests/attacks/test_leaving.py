"""Leaving with a save under way: it is finished, named and pointed at, however training ends."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
import time

import pytest
from attacks.programs import At, told, writing_is_over
from invariants import assert_whole, leftovers
from nets import Net, files, links, loader, trainer

from checkpointable import CheckpointableWarning, latest


class CrashError(Exception):
    """Thrown by the tests' own code."""


def crash():
    raise CrashError


@pytest.fixture
def slow_disk(monkeypatch):
    sync = os.fsync

    def slow(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            time.sleep(0.3)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)


@pytest.mark.parametrize("save_on_exception", [True, False])
def test_exception_right_after_a_save_began_finds_it_finished(tmp_path, slow_disk, save_on_exception):
    net = Net(dirpath=tmp_path, save_interval=2, save_on_exception=save_on_exception)
    with pytest.raises(CrashError):
        trainer(tmp_path, callbacks=[At({3: crash})]).fit(net, loader(6))
    assert files(tmp_path) == ["epoch_0_batch_2.ckpt"]
    assert links(tmp_path) == {"last.ckpt": "epoch_0_batch_2.ckpt"}
    assert net.last_model_path == str(tmp_path / "epoch_0_batch_2.ckpt")


@pytest.mark.parametrize("save_on_exception", [True, False])
def test_new_fit_after_an_exception_with_a_save_under_way_loses_nothing(tmp_path, slow_disk, save_on_exception):
    """The second ``fit`` sweeps the directory while the first one's file is being written there."""
    options = {"dirpath": tmp_path, "save_on_exception": save_on_exception}
    with pytest.raises(CrashError):
        trainer(tmp_path, callbacks=[At({3: crash})]).fit(Net(save_interval=2, **options), loader(6))
    trainer(tmp_path).fit(Net(save_interval=None, **options), loader(1))
    writing_is_over()
    assert "epoch_0_batch_2.ckpt" in files(tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize(("how", "expected"), [("sys.exit", 2), ("Ctrl-C", 3), ("SIGTERM", 3)])
def test_process_that_ends_with_a_save_under_way_leaves_it_finished(forge, place, how, expected):
    ended = forge.run("attacks.programs:leave", where=str(place), how=how)
    codes = {"sys.exit": 3, "Ctrl-C": 128 + signal.SIGINT, "SIGTERM": 128 + signal.SIGTERM}
    assert ended.code == codes[how], (ended.code, ended.errors)
    assert latest(place) == str(place / f"epoch_0_batch_{expected}.ckpt")
    assert leftovers(place) == set()
    assert links(place)["last.ckpt"] == f"epoch_0_batch_{expected}.ckpt"
    assert "Traceback" not in ended.errors


def test_second_ctrl_c_while_the_end_is_waited_for_still_leaves_the_file(tmp_path, slow_disk):
    timers = []

    def press_later():
        timers.append(threading.Timer(0.1, press))
        timers[-1].start()

    def train():
        try:
            trainer(tmp_path, callbacks=[At({2: press_later, 3: press_later})]).fit(net, loader(1000))
        finally:
            for timer in timers:
                with contextlib.suppress(KeyboardInterrupt):
                    timer.join()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        net = Net(dirpath=tmp_path, save_interval=2)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train()
        writing_is_over()
    finally:
        signal.signal(signal.SIGINT, before)
    assert latest(tmp_path) is not None
    assert_whole(tmp_path)
    assert leftovers(tmp_path) == set()


class Disk:
    """Holds up the writing of files, from the second one on, until it is let go on; at the latest after minutes."""

    def __init__(self, monkeypatch, held):
        self.held, self.files, self.free = held, 0, threading.Event()
        self.waits = threading.Event()
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            self.files += 1
            if self.files == self.held:
                self.waits.set()
                self.held_up()
        self._sync(descriptor)

    def held_up(self):
        self.free.wait(300)


@pytest.fixture
def keyboard():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_second_ctrl_c_does_not_wait_for_the_save_that_is_under_way(tmp_path, monkeypatch, keyboard):
    disk = Disk(monkeypatch, held=1)

    def press_twice():
        assert disk.waits.wait(300)
        press()
        press()

    net = Net(dirpath=tmp_path, save_interval=2)
    with pytest.raises(SystemExit):
        trainer(tmp_path, callbacks=[At({3: press_twice})]).fit(net, loader(9))
    held_up = files(tmp_path) == []
    disk.free.set()
    writing_is_over()
    assert held_up
    assert files(tmp_path) == ["epoch_0_batch_2.ckpt"], "it is finished all the same"
    assert leftovers(tmp_path) == set()


def test_second_ctrl_c_ends_the_wait_for_the_save_that_the_first_asked_for(tmp_path, monkeypatch, keyboard):
    class Pressing(Disk):
        """Presses again when the training has ended, and only that save is waited for."""

        def held_up(self):
            for _ in range(30_000):
                if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                    press()
                    break
                self.free.wait(0.01)
            super().held_up()

    disk = Pressing(monkeypatch, held=2)
    net = Net(dirpath=tmp_path, save_interval=2)
    with pytest.raises(SystemExit):
        trainer(tmp_path, callbacks=[At({3: press})]).fit(net, loader(9))
    held_up = files(tmp_path) == ["epoch_0_batch_2.ckpt"]
    disk.free.set()
    writing_is_over()
    assert held_up
    assert latest(tmp_path) == str(tmp_path / "epoch_0_batch_3.ckpt")
    assert leftovers(tmp_path) == set()


def test_interruption_right_after_the_writer_began_finds_its_file_finished(tmp_path, monkeypatch):
    """By a handler of the user's own, who wants no batch to be finished."""
    start, started = threading.Thread.start, []

    def interrupted(thread):
        start(thread)
        if thread.name == "checkpointable-writer":
            started.append(thread)
            if len(started) == 2:
                signal.raise_signal(signal.SIGINT)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    try:
        with told() as messages, pytest.raises(SystemExit):
            trainer(tmp_path).fit(Net(dirpath=tmp_path, save_interval=2), loader(9))
    finally:
        signal.signal(signal.SIGINT, before)
    assert messages == []
    assert files(tmp_path) == ["epoch_0_batch_4.ckpt"]
    assert_whole(tmp_path)
    assert leftovers(tmp_path) == set()


@pytest.mark.parametrize("error", [RuntimeError, CrashError])
def test_failure_of_the_writer_that_is_not_the_disks_is_raised_as_it_is(tmp_path, monkeypatch, error):
    def broken(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise error("in the background")

    net = Net(dirpath=tmp_path, save_interval=2, save_on_exception=True)
    monkeypatch.setattr(os, "fsync", broken)
    again = rf"while {error.__name__} ended the training, the state after .* not saved: {error.__name__}: in the backg"
    with pytest.warns(CheckpointableWarning, match=again), pytest.raises(error, match="in the background"):
        trainer(tmp_path).fit(net, loader(6))
    assert files(tmp_path) == []
    assert leftovers(tmp_path) == set()
    monkeypatch.undo()
    with told() as messages:
        trainer(tmp_path).fit(net, loader(3))
    assert messages == []
    assert files(tmp_path) == ["epoch_0_batch_3.ckpt"]
