"""Leaving with a save under way: it is finished, named and pointed at, however training ends."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time

import pytest
from attacks.programs import At, told, writing_is_over
from attacks.whole import assert_whole, leftovers
from nets import Net, files, links, loader, trainer

from checkpointable import latest


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
    codes = {"sys.exit": 3, "Ctrl-C": 1, "SIGTERM": 128 + signal.SIGTERM}
    assert ended.code in (codes[how], 0, 130, 143, -signal.SIGINT), (ended.code, ended.errors)
    assert latest(place) == str(place / f"epoch_0_batch_{expected}.ckpt")
    assert leftovers(place) == set()
    assert links(place)["last.ckpt"] == f"epoch_0_batch_{expected}.ckpt"
    assert "Traceback" not in ended.errors


def test_second_ctrl_c_while_the_end_is_waited_for_still_leaves_the_file(tmp_path, slow_disk):
    def press_later():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        net = Net(dirpath=tmp_path, save_interval=2)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            trainer(tmp_path, callbacks=[At({2: press_later, 3: press_later})]).fit(net, loader(1000))
        writing_is_over()
    finally:
        time.sleep(0.15)
        signal.signal(signal.SIGINT, before)
    assert latest(tmp_path) is not None
    assert_whole(tmp_path)
    assert leftovers(tmp_path) == set()


@pytest.mark.parametrize("error", [RuntimeError, CrashError])
def test_failure_of_the_writer_that_is_not_the_disks_is_raised_as_it_is(tmp_path, monkeypatch, error):
    def broken(descriptor):
        raise error("in the background")

    net = Net(dirpath=tmp_path, save_interval=2, save_on_exception=True)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(error, match="in the background"):
        trainer(tmp_path).fit(net, loader(6))
    assert files(tmp_path) == []
    assert leftovers(tmp_path) == set()
    monkeypatch.undo()
    with told() as messages:
        trainer(tmp_path).fit(net, loader(3))
    assert messages == []
    assert files(tmp_path) == ["epoch_0_batch_3.ckpt"]
