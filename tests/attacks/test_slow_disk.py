"""A disk on which one save lasts longer than ten intervals."""

from __future__ import annotations

import gc
import os
import stat
import threading
import time

import pytest
from attacks.programs import At, writing_is_over
from nets import SOON_SECONDS, Net, Scripted, files, links, load, loader, trainer

from checkpointable.saving import saver
from checkpointable.storage.staging.snapshot import Snapshot

LONG_SECONDS = 300


class Disk:
    """Syncs no file until it is told to."""

    def __init__(self, monkeypatch):
        self.sync, self.asked, self.gave_up = os.fsync, 0, False
        self.released, self.reached = threading.Event(), threading.Event()
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(saver, "_SOON_SECONDS", SOON_SECONDS)

    def fsync(self, descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            self.asked += 1
            self.reached.set()
            self.gave_up |= not self.released.wait(LONG_SECONDS)
        self.sync(descriptor)

    def release(self):
        self.released.set()
        writing_is_over()


@pytest.fixture
def disk(monkeypatch):
    made = Disk(monkeypatch)
    yield made
    made.release()
    assert not made.gave_up, "training did not get on while the disk was busy"


def snapshots() -> int:
    gc.collect()
    return sum(type(it) is Snapshot for it in gc.get_objects())


def test_interval_saves_that_find_the_disk_busy_are_left_out_and_the_next_one_comes(tmp_path, disk):
    net = Net(dirpath=tmp_path, save_interval=2, save_last_k=3)
    seen = []

    def look():
        assert disk.reached.wait(LONG_SECONDS)
        seen.append((disk.asked, snapshots()))

    looks = dict.fromkeys((5, 10, 20), look)  # after the first wait for the disk
    over = {25: writing_is_over, 26: writing_is_over}  # so that no save is left out by a disk that is slow by itself
    trainer(tmp_path, callbacks=[At({**looks, 24: disk.release, **over})]).fit(net, loader(27))
    assert seen == [(1, 1)] * 3, "one save under way, one copy of the state"
    assert files(tmp_path) == ["epoch_0_batch_24.ckpt", "epoch_0_batch_26.ckpt", "epoch_0_batch_27.ckpt"]
    assert snapshots() == 0


def test_training_is_not_held_up_batch_after_batch_by_a_save_that_lasts(tmp_path, disk):
    net = Net(dirpath=tmp_path, save_interval=2)
    trainer(tmp_path, callbacks=[At({60: disk.release})]).fit(net, loader(61))
    assert files(tmp_path) == ["epoch_0_batch_61.ckpt"]


def test_state_in_a_slow_file_is_that_of_its_moment(tmp_path, disk):
    class Noting(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            super().on_train_batch_end(outputs, batch, batch_idx)
            self.states = [*getattr(self, "states", []), self.layer.weight.detach().clone()]

    net = Noting(dirpath=tmp_path, save_interval=2, save_last_k=-1, async_save=True)
    trainer(tmp_path, callbacks=[At({3: disk.release})]).fit(net, loader(9))
    for name in files(tmp_path):
        content = load(tmp_path / name)
        batch = content["checkpointable"]["position"]["batch"]
        assert content["state_dict"]["layer.weight"].equal(net.states[batch - 1]), name


@pytest.fixture
def slow_disk(monkeypatch):
    sync = os.fsync

    def slow(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            time.sleep(0.1)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)


def test_no_best_save_is_dropped_on_a_slow_disk(tmp_path, slow_disk):
    scores = [9.0, 8.0, 8.5, 7.0, 6.0, 6.5, 5.0, 4.0]
    net = Scripted(scores, dirpath=tmp_path, save_interval=1, save_top_k=-1, best_filename="best_{batch}")
    trainer(tmp_path, val_check_interval=2).fit(net, loader(16), loader(1))
    best = {float(net.trainer.checkpoint_callback.best_k_models[str(tmp_path / name)]) for name in files(tmp_path)}
    assert len(files(tmp_path)) == len(scores), "save_top_k=-1 keeps all"
    assert best == set(scores)
    assert net.best_model_score == 4.0


def test_everything_is_on_disk_at_the_end_of_training(tmp_path, slow_disk):
    net = Net(dirpath=tmp_path, save_interval=1, save_last_k=2)
    trainer(tmp_path, max_epochs=2).fit(net, loader(3))
    assert links(tmp_path) == {"last.ckpt": "epoch_1_batch_3.ckpt"}
    assert net.last_model_path == str(tmp_path / "epoch_1_batch_3.ckpt")
    assert load(net.last_model_path)["state_dict"]["layer.weight"].equal(net.layer.weight)
    assert len(files(tmp_path)) == 2
